"""A few stories of the chaos suite; `python -m tests.chaos` plays many."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.breaking import INLINE, faults_of
from chaos.cluster import Cluster, cluster
from chaos.graphs import Graph, make
from chaos.sides import WAYS
from chaos.stories import play
from raysched.telemetry.sending.environment import Protocol
from servers import Server, server
from telemetry.receiver import Receiver, receiving

ON_A_CLUSTER = (
    (1, "workers killed at random moments"),
    (2, "workers killed at points of their items"),
    (6, "the driver killed at a random moment"),
    (7, "Ctrl-C or SIGTERM at a random moment"),
    (8, "the driver killed at random moments, and resumed"),
)


@pytest.fixture(scope="module")
def there() -> Iterator[Cluster]:
    """A cluster of this module's own."""
    with cluster() as found:
        yield found


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A PostgreSQL of this module's own, which stories kill and start again."""
    with server() as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where the traces of a story go."""
    with receiving(Protocol.HTTP) as running:
        yield running


@pytest.mark.parametrize("fault", INLINE)
def test_inline(fault: str, tmp_path: Path) -> None:
    assert play(1, fault, tmp_path / "story").wrong == []


@pytest.mark.parametrize("fault", INLINE)
def test_inline_and_traced(fault: str, tmp_path: Path, receiver: Receiver) -> None:
    story = play(2, fault, tmp_path / "story", receiver=receiver)
    assert story.wrong == []
    assert receiver.spans()


@pytest.mark.parametrize("fault", faults_of(inline=True, postgresql=True))
def test_on_postgresql(fault: str, tmp_path: Path, own_server: Server, receiver: Receiver) -> None:
    story = play(3, fault, tmp_path / "story", server=own_server, receiver=receiver)
    assert story.wrong == []


@pytest.mark.parametrize(("seed", "fault"), ON_A_CLUSTER)
def test_on_a_cluster(
    seed: int, fault: str, tmp_path: Path, there: Cluster, receiver: Receiver
) -> None:
    assert play(seed, fault, tmp_path / "story", there, receiver=receiver).wrong == []


@pytest.mark.parametrize("seed", range(20))
def test_a_graph_is_the_same_wherever_it_is_made(seed: int) -> None:
    graph = make(seed, two_nodes=True)
    assert graph == make(seed, two_nodes=True) == Graph.from_json(graph.to_json())


def test_every_way_of_calling_is_played() -> None:
    """Among the first seeds, which everybody plays."""
    sides = [side for seed in range(60) for side in make(seed, inline=True).sides]
    assert {(side.way, side.subflow) for side in sides} == {
        (way, subflow) for way in WAYS for subflow in (False, True)
    }
