"""Plays stories of the chaos suite and judges them."""

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.breaking import faults_of
from chaos.cluster import Cluster
from chaos.graphs import make
from chaos.log import is_alive, read_log
from chaos.oracle import Found, Judge
from chaos.resumed import judge_resumed
from chaos.sides import judge_sides
from chaos.story import TASK_RUNS, Story
from chaos.traces import judge_traces
from raysched.client import Run
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import CrashKind

if TYPE_CHECKING:
    from servers import Server
    from telemetry.receiver import Receiver

GRAPH = "n"
"""How the names of a graph's tasks begin, and those of its sides do not."""

CLEAN_SECONDS = 30.0
"""How long a cluster may take to take back what a driver had."""


def play(  # noqa: PLR0913, PLR0917 - all that there may be
    seed: int,
    fault: str,
    place: Path,
    cluster: Cluster | None = None,
    server: "Server | None" = None,
    receiver: "Receiver | None" = None,
) -> Story:
    """Play a story and judge it.

    Args:
        seed: What decides about its flow, and about the moments.
        fault: Name of the fault, see `faults_of`.
        place: A directory for it, made here.
        cluster: Where it runs; None for inline.
        server: The PostgreSQL that has its database; None for SQLite.
        receiver: Where its traces go; None if it is not traced.

    Returns:
        The story; it went well if nothing is in `wrong`.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    story = Story(seed, fault, place, cluster, server)
    if receiver is not None:
        story.environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = receiver.destination().endpoint
    graph = make(seed, inline=cluster is None, two_nodes=cluster is not None)
    (place / "graph.json").write_text(graph.to_json())
    faults_of(inline=cluster is None, postgresql=server is not None)[fault](story)
    code = story.finish()
    if story.example:
        _judge_example(story, code)
    else:
        _judge(story, code)
    if receiver is not None and story.has_run:
        story.start("-m", "raysched", "trace", "--unsent")
        if story.finish():
            story.wrong.append("not all spans were sent")
        story.wrong += judge_traces(story, receiver)
    _look_for_what_is_left(story)
    return story


def _judge(story: Story, code: int) -> None:
    if not story.has_run:
        if not (story.lost or story.stopped):
            story.wrong.append(f"there is no run: {story.output[-1000:]}")
        return
    if not story.is_whole():
        story.wrong.append("the database is broken")
    graph = make(story.seed, inline=story.cluster is None, two_nodes=story.cluster is not None)
    run, rows, log = story.kept(), story.rows(), read_log(story.place)
    judge = Judge(graph, found_of(story, run), log, story.kills, 1 + len(story.deaths))
    stopped = run.state.type is StateType.CANCELLED
    story.wrong += judge.judge(lost=story.lost, stopped=stopped)
    ended = not (story.lost or stopped)
    deaths = judge.deaths + story.lost
    story.wrong += judge_sides(graph.sides, rows, log, ended=ended, deaths=deaths)
    for death in story.deaths:
        story.wrong += judge_resumed(graph, death, read_log(story.place, death.lines))
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
    if code or not story.has_run:
        story.wrong.append(f"{story.example} ended with {code}: {story.output[-1000:]}")
        return
    counts = story.kept().counts
    completed = TASK_RUNS[story.example]
    if completed and counts != {StateType.COMPLETED: completed}:
        story.wrong.append(f"{story.example} has {counts}")


def found_of(story: Story, run: Run) -> dict[str, Found]:
    """Return what is kept of the task runs of a run's graph."""
    recorded = {f"{row.task}[{row.number}]": row.state for row in story.rows()}
    found = {}
    for one in run.task_runs():
        if not one.key.startswith(GRAPH):
            continue
        state = one.state.type
        lost = {
            row.attempt
            for row in one.history
            if row.error is not None and row.error.kind == CrashKind.DRIVER_LOST
        }
        found[one.key] = Found(
            state=state,
            ended=recorded.get(one.key, StateType.SCHEDULED).is_terminal,
            attempts=one.attempts,
            roots=frozenset(one.roots),
            handled=one.handled,
            history=[(row.attempt, StateType(row.state)) for row in one.history],
            lost=frozenset(lost),
            value=one.result() if state in SUCCESSES else None,
        )
    return found


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
