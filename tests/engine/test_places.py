"""Each task run, and each attempt, tells in which process it ran, as far as that is known."""

from __future__ import annotations

import os
import platform
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from engine.committed import Committed
from raysched import flow, task
from raysched.backends.inline import InlineBackend
from raysched.engine.places import forget, note
from raysched.engine.ports import Lost, Message, Reported, Sink
from raysched.graph.builder import Builder
from raysched.model.rows import PlaceRow
from raysched.model.states import StateType
from raysched.model.values import CrashKind, ErrorInfo, Evidence, FailureClass
from raysched.settings import settings
from raysched.testing import FakeClock
from raysched.tracker.messages import Dispatch
from raysched.wiring import Configuration, configure
from raysched.worker.protocol import decode_report, encode_report
from tracker.graphs import add_map, spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from raysched.engine.ports import Backend
    from raysched.worker.progress import WorkerIdentity

HERE = "", "", os.getpid(), platform.node()


class Elsewhere(InlineBackend):
    """Runs each unit in the next one of some workers, by what it tells.

    Args:
        workers: The workers; in the last one the rest runs. None for one that dies, and takes what
            became of its unit with it.
        evidence: What is known of that one.
    """

    def __init__(self, *workers: WorkerIdentity | None, evidence: Evidence | None = None) -> None:
        super().__init__()
        self._workers = list(workers)
        self._evidence = evidence or Evidence()

    def start(self, sink: Sink) -> None:
        def tell(message: Message) -> None:
            if not isinstance(message, Reported):
                sink(message)
                return
            worker = self._workers.pop(0) if len(self._workers) > 1 else self._workers[0]
            if worker is None:
                kind, by = CrashKind.WORKER_DIED, FailureClass.INFRASTRUCTURE
                error = ErrorInfo("", "", failure_class=by, kind=kind, evidence=self._evidence)
                sink(Lost(message.unit, error))
                return
            report = encode_report(replace(decode_report(message.report), worker=worker))
            sink(replace(message, report=report))

        super().start(tell)


A: WorkerIdentity = ("node 1", "worker a", 11, "host 1")
B: WorkerIdentity = ("node 2", "worker b", 22, "host 2")


class Placed(Committed):
    """What was committed, with the places by name."""

    def where(self, task: str, number: int = 1) -> list[WorkerIdentity | None]:
        """Return where the members of the last group of a task are told to have run.

        Args:
            task: Its name.
            number: Number of the flow run.
        """
        told: dict[int, WorkerIdentity | None] = {}
        for batch in self.batches:
            for columns in batch.task_runs:
                if self.tasks()[batch.run, columns.group] == task and batch.run == number:
                    assert len(columns.places) in {0, len(columns.indices)}
                    places = columns.places or [0] * len(columns.indices)
                    told |= {
                        index: self.place(place, number)
                        for index, place in zip(columns.indices, places, strict=True)
                    }
        return [told[index] for index in sorted(told)]

    def of_attempts(self) -> list[tuple[int, WorkerIdentity | None]]:
        """Return the number of each attempt, and where it ran."""
        return [(row.attempt, self.place(row.place)) for row in self.attempts()]

    def place(self, place: int, number: int = 1) -> WorkerIdentity | None:
        """Return a place of a flow run, told once; None for 0."""
        if not place:
            return None
        rows = [row for batch in self.batches if batch.run == number for row in batch.places]
        (found,) = [row for row in rows if row.id == place]
        return found.node_id, found.worker_id, found.pid, found.host


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A database of the test's own."""
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    settings.cache_clear()
    yield
    settings.cache_clear()


@contextmanager
def placed(backend: str | Backend) -> Iterator[Placed]:
    """Keep what flows commit on a backend."""
    kept = Placed()
    before = configure(Configuration(backend, observers=[kept], clock=FakeClock()))
    try:
        yield kept
    finally:
        configure(before)


pytestmark = pytest.mark.usefixtures("home")


@task
def load(n: int) -> int:
    return n


@task
def parse(n: int) -> int:
    return 10 * n


@task(retries=1, retry_delay_seconds=1)
def flaky(broken: list[int]) -> None:
    if not (FLAKED and FLAKED.pop()):
        FLAKED.append(1)
        raise ValueError(broken)


FLAKED: list[int] = []


@task
def calls(n: int) -> int:
    return inner(load(n))


@flow
def inner(n: int) -> int:
    return parse(n)


@flow
def maps() -> list[int]:
    result: list[int] = parse.map(load.map(range(20))).result()
    return result


@flow
def tries() -> None:
    flaky([1])


@flow
def loads() -> int:
    return load(1)


def test_maps_and_what_rides_in_their_units_were_in_one_process() -> None:
    with placed("inline") as kept:
        maps()
    assert kept.where("load") == kept.where("parse") == [HERE] * 20
    assert sum(len(batch.places) for batch in kept.batches) == 1


def test_each_attempt_was_where_it_was() -> None:
    FLAKED.clear()
    with placed(Elsewhere(A, B)) as kept:
        tries()
    assert kept.of_attempts() == [(1, A), (2, B)]
    assert kept.where("flaky") == [B]


def test_an_attempt_on_its_way_is_not_where_the_last_one_was() -> None:
    builder = Builder("run")
    add_map(builder, spec(), range(3))
    (group,) = builder.take()
    unit = Dispatch(1, group, range(3), [1] * 3, 1.0)
    note(unit, range(3), {0, 1}, 5)
    assert list(group.places) == [5, 5, 0], "what is not open there may run elsewhere"
    group.states[0] = StateType.COMPLETED
    forget(unit)
    assert list(group.places) == [5, 0, 0], "what has ended stays where it was"


@pytest.mark.parametrize(
    ("evidence", "place"),
    [
        (Evidence(node_id="node 1", worker_id="worker a", pid=11, host="host 1"), A),
        (Evidence(node_id="node 1"), ("node 1", "", 0, "")),
        (Evidence(signal="SIGSEGV"), None),
    ],
)
def test_what_is_lost_was_where_the_evidence_says(
    evidence: Evidence, place: WorkerIdentity | None
) -> None:
    with placed(Elsewhere(None, B, evidence=evidence)) as kept:
        loads()
    assert kept.of_attempts() == [(1, place), (2, B)]
    assert kept.where("load") == [B]


def test_what_a_task_calls_was_where_it_was_itself() -> None:
    @flow
    def nesting() -> int:
        return calls(1)

    with placed(Elsewhere(A)) as kept:
        nesting()
    assert kept.where("calls") == kept.where("load") == [A]
    assert kept.where("parse", 2) == [A]


def test_places_of_a_run_that_goes_on_have_ids_of_their_own() -> None:
    @flow
    def broken() -> int:
        value = load(len(wanted))
        if not wanted:
            raise ValueError("broken")
        return value

    wanted: list[int] = []
    with placed(Elsewhere(A)) as first:
        broken(return_state=True)
    wanted.append(1)
    with placed(Elsewhere(B)) as then:
        broken.resume("last")
    (one,) = [row for batch in first.batches for row in batch.places]
    (two,) = [row for batch in then.batches for row in batch.places]
    assert (one, two) == (PlaceRow(1, *A), PlaceRow(2, *B))


@task
def here(_: int) -> tuple[int, str, str]:
    from ray import get_runtime_context

    context: Any = get_runtime_context()
    return os.getpid(), context.get_worker_id(), context.get_node_id()


def test_on_ray_they_are_rays_workers(local_ray: None) -> None:
    @flow
    def many() -> list[tuple[int, str, str]]:
        result: list[tuple[int, str, str]] = here.map(range(40)).result()
        return result

    with placed("ray") as kept:
        found = many()
    told = [(place[2], place[1], place[0]) for place in kept.where("here") if place]
    assert told == found
