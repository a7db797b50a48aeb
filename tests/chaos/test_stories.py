"""A few stories of the chaos suite; `python -m tests.chaos` plays many."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.breaking import INLINE
from chaos.cluster import Cluster, cluster
from chaos.graphs import Graph, make
from chaos.stories import play

ON_A_CLUSTER = (
    (1, "workers killed at random moments"),
    (2, "workers killed at points of their items"),
    (6, "the driver killed at a random moment"),
    (7, "Ctrl-C or SIGTERM at a random moment"),
)


@pytest.fixture(scope="module")
def there() -> Iterator[Cluster]:
    """A cluster of this module's own."""
    with cluster() as found:
        yield found


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("fault", INLINE)
def test_inline(seed: int, fault: str, tmp_path: Path) -> None:
    assert play(seed, fault, tmp_path / "story").wrong == []


@pytest.mark.parametrize(("seed", "fault"), ON_A_CLUSTER)
def test_on_a_cluster(seed: int, fault: str, tmp_path: Path, there: Cluster) -> None:
    assert play(seed, fault, tmp_path / "story", there).wrong == []


@pytest.mark.parametrize("seed", range(20))
def test_a_graph_is_the_same_wherever_it_is_made(seed: int) -> None:
    graph = make(seed, two_nodes=True)
    assert graph == make(seed, two_nodes=True) == Graph.from_json(graph.to_json())
