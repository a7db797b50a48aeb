import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from face.around import ignore, in_flow
from raysched import (
    FutureError,
    ResultTimeout,
    TaskFuture,
    TaskFutureList,
    UpstreamFailed,
    as_completed,
    task,
    unmapped,
    wait,
)
from raysched.define.ranges import sliced
from raysched.graph.group import Group
from raysched.model.options import TaskSpec


@task
def double(x: int) -> int:
    return 2 * x


@task
def held(x: int, gate: Path) -> int:
    """Return twice as much when there is a gate: nobody is as slow as to see it end before."""
    while not gate.exists():
        time.sleep(0.01)
    return 2 * x


@task
def fail(x: int = 0) -> int:
    raise ValueError(x)


class TestFuture:
    def test_result(self) -> None:
        assert in_flow(lambda: double.submit(2).result()) == 4

    def test_result_that_is_not_raised(self) -> None:
        def body() -> str:
            return repr(fail.submit(3).result(raise_on_failure=False))

        assert in_flow(body) == "ValueError(3)"

    def test_result_is_a_fresh_copy(self) -> None:
        @task
        def values() -> list[int]:
            return [1]

        def body() -> list[int]:
            future = values.submit()
            future.result().append(2)
            return future.result()

        assert in_flow(body) == [1]

    def test_wait_and_state(self, tmp_path: Path) -> None:
        def body() -> None:
            future = held.submit(2, tmp_path / "gate")
            assert future.state.name in {"Scheduled", "Pending", "Running"}
            assert not future.done()
            (tmp_path / "gate").touch()
            assert future.wait()
            assert future.done()
            assert future.state.is_completed()
            assert future.state.result() == 4
            assert future.state.data == 4

        in_flow(body)

    def test_zero_timeout(self, tmp_path: Path) -> None:
        def body() -> int:
            future = held.submit(2, tmp_path / "gate")
            with pytest.raises(ResultTimeout, match=r"held\[0\] is \w+ after 0 s"):
                future.result(timeout=0)
            (tmp_path / "gate").touch()
            return future.result()

        # Inline, a wait of no time runs nothing.
        assert in_flow(body) == 4

    def test_is_neither_true_nor_false(self) -> None:
        def body() -> None:
            future = double.submit(2)
            with pytest.raises(FutureError, match=r"use double\[0\]\.result\(\)"):
                bool(future)

        in_flow(body)

    def test_names(self) -> None:
        @task(task_run_name="double-{x}")
        def named(x: int) -> int:
            return x

        def body() -> None:
            future = named.submit(4)
            assert (future.key, future.name) == ("named[0]", "named[0]")
            future.wait()
            assert future.name == "double-4"
            assert future.task_run_id.endswith("/named[0]")

        in_flow(body)

    def test_equality(self) -> None:
        def body() -> None:
            futures = double.map([1, 2])
            assert futures[0] == futures[0]
            assert futures[0] != futures[1]
            assert len({*futures, *futures}) == 2
            assert futures[0] != 3

        in_flow(body)

    def test_victim_names_its_roots(self) -> None:
        def body() -> tuple[str, ...]:
            victim = double.submit(double.submit(fail.submit()))
            with pytest.raises(UpstreamFailed) as caught:
                victim.result()
            assert isinstance(caught.value.__cause__, ValueError)
            return caught.value.roots

        assert in_flow(body) == ("fail[0]",)

    def test_cannot_be_pickled_outside_a_call(self) -> None:
        import pickle

        def body() -> None:
            with pytest.raises(FutureError, match=r"future\.result"):
                pickle.dumps(double.submit(1))

        in_flow(body)

    def test_result_after_the_run(self) -> None:
        futures: list[TaskFuture[int]] = []
        in_flow(lambda: futures.append(double.submit(2)))
        assert futures[0].result() == 4

    def test_repr(self) -> None:
        def body() -> None:
            future = double.submit(1)
            assert repr(future) == "TaskFuture(double[0], SCHEDULED)"
            assert repr(double.map([1, 2])) == "TaskFutureList(2 of double[1]…double[2])"
            assert repr(double.map([])) == "TaskFutureList(0 of nothing)"

        in_flow(body)


class TestWait:
    def test_all(self) -> None:
        def body() -> None:
            futures = [double.submit(1), fail.submit(), double.submit(1)]
            done, not_done = wait([*futures, futures[0]])
            assert done == set(futures)
            assert not not_done
            assert futures[1].state.is_failed()

        in_flow(body)

    def test_timeout(self, tmp_path: Path) -> None:
        def body() -> None:
            futures = held.map(range(3), unmapped(tmp_path / "gate"))
            assert wait(futures, timeout=0).not_done == set(futures)
            (tmp_path / "gate").touch()
            assert wait(futures).done == set(futures)
            assert futures.done()

        in_flow(body)

    def test_nothing(self) -> None:
        assert wait([]) == (set(), set())

    def test_something_else(self) -> None:
        with pytest.raises(FutureError, match="3 is no future"):
            wait([3])  # type: ignore[arg-type]

    def test_negative_timeout(self) -> None:
        with pytest.raises(FutureError, match="timeout=-1"):
            in_flow(lambda: wait([double.submit(1)], timeout=-1))

    def test_futures_of_two_runs(self) -> None:
        futures: list[TaskFuture[int]] = []
        in_flow(lambda: futures.append(double.submit(2)))
        with pytest.raises(FutureError, match="another flow run"):
            in_flow(lambda: wait([double.submit(1), *futures]))


class TestAsCompleted:
    def test_yields_each_once(self) -> None:
        def body() -> list[int]:
            futures = [*double.map(range(20)), double.submit(100)]
            return sorted(future.result() for future in as_completed([*futures, *futures]))

        assert in_flow(body) == [*range(0, 40, 2), 200]

    def test_of_a_list(self) -> None:
        def body() -> list[int]:
            return sorted(future.result() for future in as_completed(double.map(range(5))))

        assert in_flow(body) == [0, 2, 4, 6, 8]

    def test_failures_too(self) -> None:
        def body() -> list[str]:
            ended = as_completed([double.submit(1), fail.submit()])
            return sorted(future.state.name for future in ended)

        assert in_flow(body) == ["Completed", "Failed"]

    def test_submitting_meanwhile(self) -> None:
        def body() -> list[int]:
            return [double.submit(future).result() for future in as_completed(double.map(range(3)))]

        assert sorted(in_flow(body)) == [0, 4, 8]

    def test_timeout(self, tmp_path: Path) -> None:
        def body() -> None:
            futures = held.map(range(3), unmapped(tmp_path / "gate"))
            with pytest.raises(ResultTimeout, match="3 task runs have not ended after 0 s"):
                ignore(next(as_completed(futures, timeout=0)))
            (tmp_path / "gate").touch()

        in_flow(body)

    def test_leaves_no_watcher_behind(self) -> None:
        def body() -> None:
            futures = double.map(range(3))
            ended = as_completed(futures)
            ignore(next(ended))
            ended.close()  # type: ignore[attr-defined]
            assert futures.parts[0][0].watchers == []

        in_flow(body)

    def test_nothing(self) -> None:
        assert list(as_completed([])) == []


class TestThreads:
    def test_several_may_wait(self) -> None:
        def body() -> list[int]:
            futures = double.map(range(50))
            results: list[list[int]] = []
            threads = [
                threading.Thread(target=lambda: results.append(futures.result())) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert results == [[2 * n for n in range(50)]] * 4
            return results[0]

        in_flow(body)


def nothing() -> None: ...


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    cuts=st.lists(
        st.builds(
            slice,
            st.none() | st.integers(-8, 25),
            st.none() | st.integers(-8, 25),
            st.none() | st.integers(-4, 4).filter(bool),
        ),
        max_size=3,
    ),
)
def test_slices_are_those_of_a_list(sizes: list[int], cuts: list[slice]) -> None:
    parts = [
        (Group(number, "run", TaskSpec("t", nothing), 0), range(number, number + size))
        for number, size in enumerate(sizes)
    ]
    futures: TaskFutureList[Any] = TaskFutureList(None, parts)  # type: ignore[arg-type]
    expected = [(group.id, index) for group, indices in parts for index in indices]
    for cut in cuts:
        futures, expected = futures[cut], expected[cut]
    assert [(group.id, index) for group, index in futures.members()] == expected
    assert len(futures) == len(expected)
    assert all(indices for _, indices in sliced(futures.parts, slice(None)))
    with contextlib.suppress(IndexError):
        assert futures[-1].member[1] == expected[-1][1]
