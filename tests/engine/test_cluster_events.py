"""What happens to the cluster is kept with each run that was open then, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.committed import Committed
from raysched import flow, task
from raysched.backends.inline import InlineBackend
from raysched.engine.ports import Happened, Sink
from raysched.model.events import ClusterEvent, EventKind
from raysched.settings import settings
from raysched.wiring import Configuration, SystemClock, configure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Cluster(InlineBackend):
    """A backend to which something may happen."""

    def start(self, sink: Sink) -> None:
        self.sink = sink
        super().start(sink)

    def happen(self, message: str) -> ClusterEvent:
        """Tell of an event; return it."""
        event = ClusterEvent(EventKind.NODE_REMOVED, 5, message, {"node_id": "n"})
        self.sink(Happened(event))
        return event


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def kept(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Committed]:
    """Run the flows of a test on that cluster, and keep what was committed."""
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    settings.cache_clear()
    committed = Committed()
    before = configure(Configuration(cluster, observers=[committed]))
    yield committed
    configure(before)
    settings.cache_clear()


@task
def work() -> None:
    pass


def events(kept: Committed, number: int) -> list[ClusterEvent]:
    """Return what was kept with a flow run."""
    return [event for batch in kept.batches if batch.run == number for event in batch.events]


def test_each_open_run_keeps_it_once(kept: Committed, cluster: Cluster) -> None:
    told: list[ClusterEvent] = []

    @flow
    def below() -> None:
        work()
        told.append(cluster.happen("during both"))
        work()

    @flow
    def around() -> None:
        work()
        told.append(cluster.happen("during one"))
        below()
        # Nothing else is committed before the end.
        told.append(cluster.happen("at the end"))

    around()
    cluster.happen("after both")
    assert events(kept, 1) == told
    assert events(kept, 2) == [told[1]]


def test_groups_tell_when_they_were_made(kept: Committed, cluster: Cluster) -> None:
    @flow
    def two() -> None:
        work()
        work()

    del cluster
    before = SystemClock().now()
    two()
    first, second = [row for batch in kept.batches for row in batch.groups]
    started = [columns.started[0] for batch in kept.batches for columns in batch.task_runs]
    assert before < first.created < second.created
    assert first.created <= started[0] <= second.created <= started[-1]
