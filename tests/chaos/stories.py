"""Plays stories of the chaos suite and judges them."""

import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from chaos.breaking import FAULTS, INLINE
from chaos.cluster import Cluster
from chaos.graphs import make
from chaos.log import is_alive, read_log
from chaos.oracle import Found, Judge
from chaos.story import TASK_RUNS, Story
from raysched.client import Run
from raysched.model.states import SUCCESSES, StateType

CLEAN_SECONDS = 30.0
"""How long a cluster may take to take back what a driver had."""


def play(seed: int, fault: str, place: Path, cluster: Cluster | None = None) -> Story:
    """Play a story and judge it.

    Args:
        seed: What decides about its flow, and about the moments.
        fault: Name of the fault, from `FAULTS`, or from `INLINE` without a cluster.
        place: A directory for it, made here.
        cluster: Where it runs.

    Returns:
        The story; it went well if nothing is in `wrong`.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    story = Story(seed, fault, place, cluster)
    graph = make(seed, inline=cluster is None, two_nodes=cluster is not None)
    (place / "graph.json").write_text(graph.to_json())
    {**FAULTS, **INLINE}[fault](story)
    code = story.finish()
    if story.example:
        _judge_example(story, code)
    else:
        _judge(story, code)
    _look_for_what_is_left(story)
    return story


def _judge(story: Story, code: int) -> None:
    if not _has_run(story):
        if not (story.lost or story.stopped):
            story.wrong.append(f"there is no run: {story.output[-1000:]}")
        return
    graph = make(story.seed, inline=story.cluster is None, two_nodes=story.cluster is not None)
    run = story.kept()
    judge = Judge(graph, found_of(story, run), read_log(story.place), story.kills)
    stopped = run.state.type is StateType.CANCELLED
    story.wrong += judge.judge(lost=story.lost, stopped=stopped)
    if story.lost and run.state.type is StateType.CRASHED:
        expected = StateType.CRASHED
        if run.message != "driver lost":
            story.wrong.append(f"the run says {run.message!r}, not that its driver is lost")
    else:
        expected = StateType.CANCELLED if stopped and story.stopped else judge.outcome()
    if run.state.type is not expected:
        story.wrong.append(f"the run is {run.state.name} ({run.message}), not {expected.name}")
    # A signal may have come when the flow had ended, and the process not yet.
    by_signal = story.stopped and code < 0
    if not (story.lost or by_signal) and (code == 0) != (expected is StateType.COMPLETED):
        story.wrong.append(f"the driver ended with {code}: {story.output[-1000:]}")


def _judge_example(story: Story, code: int) -> None:
    if code or not _has_run(story):
        story.wrong.append(f"{story.example} ended with {code}: {story.output[-1000:]}")
        return
    counts = story.kept().counts
    completed = TASK_RUNS[story.example]
    if completed and counts != {StateType.COMPLETED: completed}:
        story.wrong.append(f"{story.example} has {counts}")


def found_of(story: Story, run: Run) -> dict[str, Found]:
    """Return what is kept of the task runs of a run."""
    recorded = _recorded(story)
    found = {}
    for one in run.task_runs():
        state = one.state.type
        found[one.key] = Found(
            state=state,
            ended=recorded.get(one.key, StateType.SCHEDULED).is_terminal,
            attempts=one.attempts,
            roots=frozenset(one.roots),
            handled=one.handled,
            history=[(row.attempt, StateType(row.state)) for row in one.history],
            value=one.result() if state in SUCCESSES else None,
        )
    return found


def _database(story: Story) -> Path:
    return Path(story.environment["RAYSCHED_HOME"]) / "raysched.db"


def _has_run(story: Story) -> bool:
    if not _database(story).exists():
        return False
    with closing(sqlite3.connect(_database(story))) as connection:
        try:
            return bool(connection.execute("SELECT count(*) FROM flow_run").fetchone()[0])
        except sqlite3.OperationalError:
            # Killed before the tables were there.
            return False


def _recorded(story: Story) -> dict[str, StateType]:
    """Return the states as they are written, and check that the file is whole."""
    with closing(sqlite3.connect(_database(story))) as connection:
        (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
        if whole != "ok":
            story.wrong.append(f"the database is broken: {whole}")
        rows = connection.execute(
            "SELECT task, first + idx, state FROM task_run JOIN task_group "
            "ON task_group.run = task_run.run AND task_group.id = task_run.grp"
        ).fetchall()
    return {f"{task}[{index}]": StateType(state) for task, index, state in rows}


def _look_for_what_is_left(story: Story) -> None:
    """Look for processes of the story that live on, and for resources that are not given back."""
    log = read_log(story.place)
    # Whom SIGKILL hits cannot end what it has started.
    killed = story.kills or story.lost
    children = set() if killed else log.children
    story.wrong += [f"process {pid} outlived its task run" for pid in log.left if not killed]
    assert story.driver is not None
    mine = {story.driver.pid}
    workers = log.processes - mine if story.cluster is not None else set()
    deadline = time.monotonic() + CLEAN_SECONDS
    left: list[str] = ["not looked"]
    while left and time.monotonic() < deadline:
        left = [f"process {pid} is left" for pid in sorted(workers | children) if is_alive(pid)]
        if story.cluster is not None:
            look = story.cluster.say("look")
            left += [
                f"{name}: {look['free'].get(name, 0)} of {amount} are free"
                for name, amount in look["all"].items()
                if look["free"].get(name, 0) != amount and not name.startswith("object_store")
            ]
        if left:
            time.sleep(0.2)
    story.wrong += left
    for pid in log.children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
