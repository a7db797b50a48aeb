"""What is broken in stories of the chaos suite, and when."""

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import psutil

from chaos.log import read_log
from chaos.story import EXAMPLES, HERE, TASK_RUNS, Story
from raysched.errors import StoreUnavailable
from raysched.faults import POINTS

if TYPE_CHECKING:
    from subprocess import Popen

    from raysched.testing import Point

Fault: TypeAlias = Callable[[Story], None]
"""Starts the story's driver, and breaks something while it runs."""


def _drive(story: Story) -> None:
    story.start(HERE / "driver.py", story.place, **story.points.environment())


def kill_workers(story: Story) -> None:
    """Kill processes that run units, at random moments."""
    assert story.cluster is not None
    _drive(story)
    most = story.chance.randint(1, 6)
    story.until_begun()
    while story.sleep(story.chance.uniform(0, 0.4)) and story.struck < most:
        workers = story.cluster.workers()
        if workers:
            with suppress(psutil.NoSuchProcess):
                story.chance.choice(workers).kill()
                story.strike()


def kill_workers_at_points(story: Story) -> None:
    """Have workers kill themselves at points of items, or right before they report."""
    choices = [point for point in POINTS if point.startswith("worker")]
    for point in story.chance.sample(choices, 2):
        nth, times = story.chance.randint(1, 25), story.chance.choice((1, 1, 2))
        story.points.kill(point, nth=nth, times=times)
        story.told.append((point, nth, times))
        story.kills += times
    _drive(story)


def kill_node(story: Story) -> None:
    """Kill the second node with all that runs there; another one comes."""
    assert story.cluster is not None
    _drive(story)
    story.until_begun()
    if story.sleep(story.chance.uniform(0, 2)):
        story.cluster.say("kill node")
        story.strike()
        story.sleep(story.chance.uniform(0, 2))
        story.cluster.say("add node")


def kill_driver(story: Story) -> None:
    """Kill the driver at a random moment."""
    driver = _started(story)
    if story.sleep(story.chance.uniform(0, 2.5)):
        driver.kill()
        story.lost = driver.wait() == -signal.SIGKILL


def kill_driver_and_resume(story: Story) -> None:
    """Kill the driver at random moments; each time another one goes on with its run."""
    _started(story)
    longest = 2.5 if story.cluster is not None else 0.4
    for _ in range(story.chance.randint(1, 3)):
        if not story.sleep(story.chance.uniform(0, longest)):
            return
        begun = read_log(story.place).lines
        story.die()
        if not story.has_run:
            _drive(story)
        elif not story.resume():
            # It was about to end anyway.
            story.lost = True
            return
        story.until_more(begun)


def kill_driver_at_points_and_resume(story: Story) -> None:
    """Have the driver kill itself around a commit or a dispatch; another one goes on."""
    kill_driver_at_points(story)
    if story.lost and story.has_run:
        # Whoever goes on meets no such point.
        story.lost = not story.resume()


def end_sessions(story: Story) -> None:
    """End all sessions of PostgreSQL at random moments, as an administrator or a proxy does."""
    assert story.server is not None
    _started(story)
    most = story.chance.randint(1, 8)
    while story.struck < most and story.sleep(story.chance.uniform(0, 0.5)):
        story.server.terminate_sessions()
        story.struck += 1


def kill_server(story: Story) -> None:
    """Kill all of PostgreSQL at a random moment, and start it again."""
    assert story.server is not None
    _started(story)
    most = story.chance.randint(1, 2)
    while story.struck < most and story.sleep(story.chance.uniform(0, 1)):
        story.server.kill()
        story.struck += 1
        story.sleep(story.chance.uniform(0, 2))
        story.server.start()


def _started(story: Story) -> "Popen[bytes]":
    _drive(story)
    assert story.driver is not None
    story.until_begun()
    return story.driver


def kill_driver_at_points(story: Story) -> None:
    """Have the driver kill itself around a commit, a dispatch or the end of the flow."""
    choices: Sequence[Point] = (
        *("before commit", "after commit", "before dispatch"),
        "flow: before end",
    )
    point = story.chance.choice(choices)
    nth = 1 if point == "flow: before end" else story.chance.randint(1, 12)
    story.points.kill(point, nth=nth)
    _drive(story)
    assert story.driver is not None
    story.lost = story.finish() == -signal.SIGKILL


def interrupt(story: Story) -> None:
    """Press Ctrl-C, or send SIGTERM, at a random moment."""
    driver = _started(story)
    if story.sleep(story.chance.uniform(0, 2.5)):
        driver.send_signal(story.chance.choice((signal.SIGINT, signal.SIGTERM)))
        story.stopped = True


def lose_database(story: Story) -> None:
    """Have commits fail as if the database were away, before or after they are written."""
    choices: Sequence[Point] = ("before commit", "after commit")
    for point in choices:
        nth, times = story.chance.randint(1, 20), story.chance.randint(1, 2)
        story.points.raises(point, StoreUnavailable, nth=nth, times=times)
        story.told.append((point, nth, times))
    _drive(story)


def kill_workers_of_an_example(story: Story) -> None:
    """Kill a few of the workers of an example, fewer than its `crash_retries`."""
    assert story.cluster is not None
    story.example = story.chance.choice(sorted(TASK_RUNS))
    calm = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    story.start("-m", "raysched", "run", EXAMPLES / story.example, **calm)
    most = story.chance.randint(1, 3)
    while story.sleep(story.chance.uniform(0.2, 1.5)) and story.struck < most:
        workers = story.cluster.workers()
        if workers:
            with suppress(psutil.NoSuchProcess):
                story.chance.choice(workers).kill()
                story.strike()


ON_A_CLUSTER: Mapping[str, Fault] = {
    "workers killed at random moments": kill_workers,
    "workers killed at points of their items": kill_workers_at_points,
    "a node killed": kill_node,
    "the driver killed at a random moment": kill_driver,
    "the driver killed around commits": kill_driver_at_points,
    "the driver killed at random moments, and resumed": kill_driver_and_resume,
    "the driver killed around commits, and resumed": kill_driver_at_points_and_resume,
    "Ctrl-C or SIGTERM at a random moment": interrupt,
    "the database away around commits": lose_database,
    "workers of the examples killed": kill_workers_of_an_example,
}
"""What is broken on a cluster."""

INLINE: Mapping[str, Fault] = {
    "inline: the driver killed around commits": kill_driver_at_points,
    "inline: the driver killed at random moments, and resumed": kill_driver_and_resume,
    "inline: the driver killed around commits, and resumed": kill_driver_at_points_and_resume,
    "inline: the database away around commits": lose_database,
}
"""What is broken where everything is in the driver's process."""

ON_POSTGRESQL: Mapping[str, Fault] = {
    "PostgreSQL: all sessions ended at random moments": end_sessions,
    "PostgreSQL: the server killed at a random moment": kill_server,
}
"""What is broken beside that where the database is PostgreSQL."""


def faults_of(*, inline: bool, postgresql: bool) -> Mapping[str, Fault]:
    """Return what can be broken, by name.

    Args:
        inline: Whether everything is in the driver's process.
        postgresql: Whether the database is PostgreSQL.
    """
    found = dict(INLINE if inline else ON_A_CLUSTER)
    if postgresql:
        prefix = "inline: " if inline else ""
        found |= {f"{prefix}{name}": fault for name, fault in ON_POSTGRESQL.items()}
    return found
