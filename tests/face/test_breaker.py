"""A map that fails again and again is stopped early."""

from pathlib import Path
from typing import Any

import pytest

from face.around import caught, in_flow
from raysched import StateType, UpstreamFailed, flow, get_run, runtime, task


@pytest.fixture
def begun(tmp_path: Path) -> Any:
    """Return how many task runs have begun."""
    return lambda: len(list(tmp_path.iterdir()))


def broken_task(folder: Path, **options: Any) -> Any:
    @task(batch_size=1, max_parallel=1, **options)
    def broken(n: int) -> None:
        (folder / str(n)).touch()
        raise ValueError("the same")

    return broken


@pytest.mark.parametrize(
    ("limit", "at_most"), [(0, 1), (2, 3), (0.1, 4)], ids=["none", "count", "share"]
)
def test_max_failures(limit: float, at_most: int, tmp_path: Path, begun: Any) -> None:
    broken = broken_task(tmp_path, max_failures=limit)

    @flow
    def body() -> tuple[str, list[StateType]]:
        futures = broken.map(range(30))
        futures.wait()
        return str(runtime.flow_run.id), [state.type for state in futures.states]

    run_id, states = body()
    assert 1 <= begun() <= at_most
    assert set(states) == {StateType.FAILED, StateType.UPSTREAM_FAILED}
    assert states.count(StateType.FAILED) == begun()
    stopped = [each for each in get_run(run_id).task_runs() if each.state.is_upstream_failed()]
    assert all("max_failures" in each.reason for each in stopped)


def test_the_stopped_ones_name_their_roots(tmp_path: Path) -> None:
    broken = broken_task(tmp_path, max_failures=0)

    def body() -> tuple[str, ...]:
        futures = broken.map(range(5))
        futures.wait()
        with pytest.raises(UpstreamFailed) as raised:
            futures[-1].result()
        caught(futures.result)
        return raised.value.roots

    assert in_flow(body) == ("broken[0]",)


def test_failures_within_the_limit(tmp_path: Path, begun: Any) -> None:
    broken = broken_task(tmp_path, max_failures=30)
    caught(in_flow, lambda: broken.map(range(10)).wait())
    assert begun() == 10


def test_the_same_failure_in_a_row(tmp_path: Path, begun: Any) -> None:
    broken = broken_task(tmp_path, max_same_failures=3)
    caught(in_flow, lambda: broken.map(range(30)).wait())
    assert 3 <= begun() <= 4


def test_different_failures_go_on(tmp_path: Path, begun: Any) -> None:
    @task(batch_size=1, max_parallel=1, max_same_failures=2)
    def broken(n: int) -> None:
        (tmp_path / str(n)).touch()
        raise (KeyError if n % 2 else ValueError)("changing")

    caught(in_flow, lambda: broken.map(range(10)).wait())
    assert begun() == 10


def test_any_number_of_the_same(tmp_path: Path, begun: Any) -> None:
    broken = broken_task(tmp_path, max_same_failures=0)
    caught(in_flow, lambda: broken.map(range(10)).wait())
    assert begun() == 10
