"""Flows that race, follow the order of completion or call subflows, and go on."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from random import Random
from typing import TYPE_CHECKING

import pytest

from engine.going_on import Shown, broken, executed, fails, ran, run, said, shown
from raysched import as_completed, flow, get_run, task
from raysched.client import get_runs
from raysched.model.states import StateType

if TYPE_CHECKING:
    from raysched.define.futures import TaskFuture, TaskFutureList

COMPLETED = StateType.COMPLETED

pytestmark = pytest.mark.usefixtures("committed", "nothing_ran")


@task
def load(n: int) -> int:
    run("load", n)
    return n


@task(retries=1, retry_delay_seconds=5)
def late(n: int) -> int:
    run("late", n)
    if ran.count(f"late {n}") == 1:
        raise ValueError("broken for once")
    return n


@task
def fold(so_far: str, n: int) -> str:
    run("fold", f"{so_far}{n}")
    return f"{so_far}{n}"


@task
def last(value: str) -> str:
    run("last")
    return value


@task
def also(n: int) -> int:
    run("also", n)
    return n


def followed(futures: "list[TaskFuture[int]] | TaskFutureList[int]") -> str:
    """Fold results in the order in which they come: each call depends on it."""
    text = ""
    for future in as_completed(futures):
        text = fold(text, future.result())
    return text


class TestTheOrderOfCompletion:
    def test_is_repeated(self) -> None:
        delayed = {1, 3}

        @flow
        def around() -> str:
            futures = [(late if n in delayed else load).submit(n) for n in range(5)]
            return last(followed(futures))

        broken.add("last")
        fails(around)
        assert executed()["fold 02413"] == 1
        broken.clear()
        assert around.resume() == "02413"
        assert executed() == {"last": 1}

    def test_is_repeated_each_time_that_they_are_followed(self) -> None:
        @flow
        def around() -> str:
            futures = [late.submit(0), load.submit(1), load.submit(2)]
            in_time = followed(futures)
            # Now all have ended, and are given in the order of the list.
            return last(f"{in_time} {followed(futures)}")

        broken.add("last")
        fails(around)
        executed()
        broken.clear()
        assert around.resume() == "120 012"
        assert executed() == {"last": 1}

    def test_of_another_run_is_that_of_the_new_one(self) -> None:
        @flow
        def around() -> str:
            futures = [(late if n in {1, 3} else load).submit(n) for n in range(5)]
            return last(followed(futures))

        broken.add("last")
        fails(around)
        fails(around.rerun)
        executed()
        broken.clear()
        assert around.resume() == "02413"
        assert executed() == {"last": 1}

    def test_goes_on_where_it_was_broken_off(self) -> None:
        @flow
        def around() -> str:
            return followed([load.submit(n) for n in range(4)])

        broken.add(("fold", "012"))
        fails(around)
        executed()
        broken.clear()
        assert around.resume() == "0123"
        assert executed() == {"fold 012": 1, "fold 0123": 1}


@pytest.mark.parametrize("seed", range(6))
def test_threads_that_race_run_nothing_twice(seed: int) -> None:
    random = Random(seed)
    bombs = [random.randrange(12) for _ in range(3)]
    left = [0]

    def one(name: int) -> int:
        value = 100 * name
        for _ in range(4):
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("broken here")
            value = load(value) + 1
        return value

    @flow
    def around() -> int:
        left[0] = bombs.pop() if bombs else 1000
        with ThreadPoolExecutor(3) as pool:
            tasks = [pool.submit(copy_context().run, one, name) for name in (1, 2, 3)]
            return sum(each.result() for each in tasks)

    with pytest.raises(RuntimeError):
        around()
    while bombs:
        with pytest.raises(RuntimeError):
            around.resume()
    assert around.resume() == 100 + 200 + 300 + 12
    assert executed() == {f"load {100 * name + n}": 1 for name in (1, 2, 3) for n in range(4)}
    assert set(shown().values()) == {Shown(COMPLETED, 1)}


@pytest.mark.parametrize("seed", range(6))
def test_coroutines_that_race_run_nothing_twice(seed: int) -> None:
    random = Random(seed)
    bombs = [random.randrange(12) for _ in range(3)]
    left = [0]

    async def one(name: int) -> int:
        value = 100 * name
        for _ in range(4):
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("broken here")
            value = await load.submit(value) + 1
        return value

    @flow
    async def around() -> int:
        left[0] = bombs.pop() if bombs else 1000
        return sum(await asyncio.gather(*map(one, (1, 2, 3))))

    with pytest.raises(RuntimeError):
        asyncio.run(around())
    while bombs:
        with pytest.raises(RuntimeError):
            asyncio.run(around.resume())
    assert asyncio.run(around.resume()) == 100 + 200 + 300 + 12
    assert set(executed().values()) == {1}
    assert {view.state for view in shown().values()} == {COMPLETED}


@flow
def inner(n: int) -> int:
    run("inner", n)
    return load(n) + also(n)


@flow
def middle(n: int) -> int:
    run("middle", n)
    return inner(n) + inner(n + 1)


def runs() -> dict[str, StateType]:
    """The flow runs of the last run, by flow and number, with their states."""
    found = get_runs(include_subflows=True)
    return {f"{each.flow} {n}": each.state.type for n, each in enumerate(found)}


class TestSubflows:
    def test_that_completed_are_answered(self) -> None:
        @flow
        def around() -> int:
            return inner(1) + load(7)

        broken.add(("load", 7))
        fails(around)
        executed()
        broken.clear()
        assert around.resume() == 9
        assert executed() == {"load 7": 1}

    def test_that_failed_go_on_two_deep(self) -> None:
        @flow
        def around() -> int:
            return middle(1)

        broken.add(("load", 2))
        fails(around)
        assert executed() == {
            "middle 1": 1,
            "inner 1": 1,
            "load 1": 1,
            "also 1": 1,
            "inner 2": 1,
            "load 2": 1,
        }
        before = len(runs())
        broken.clear()
        assert around.resume() == 6
        assert executed() == {"middle 1": 1, "inner 2": 1, "load 2": 1, "also 2": 1}
        assert len(runs()) == before == 4
        assert set(runs().values()) == {COMPLETED}

    def test_equal_calls_are_told_apart(self) -> None:
        @flow
        def around() -> int:
            value = inner(1) + inner(1)
            return load(value)

        broken.add(("load", 4))
        fails(around)
        executed()
        broken.clear()
        assert around.resume() == 4
        assert executed() == {"load 4": 1}

    def test_are_answered_in_each_attempt_of_the_flow_around_them(self) -> None:
        @flow(retries=1)
        def around() -> int:
            return inner(1) + load(7)

        broken.add(("load", 7))
        fails(around)
        broken.discard(("load", 7))
        executed()
        broken.add(("load", 7))
        fails(around.resume)
        assert executed() == {"load 7": 2}
        broken.clear()
        assert around.resume() == 9
        assert executed() == {"load 7": 1}

    def test_are_reused_by_another_run(self) -> None:
        @flow
        def around() -> int:
            return inner(1) + load(7)

        around()
        executed()
        assert around.rerun(again=["load"]) == 9
        assert executed() == {"inner 1": 1, "load 1": 1, "load 7": 1}


class TestWhatIsLeftOver:
    def test_ends_and_is_told(self) -> None:
        ways = ["old"]

        @flow
        def around() -> int:
            load(1)
            if ways[-1] == "old":
                load(2)
                load.submit(3).wait()
                load(4)
            return load(5)

        broken.update({("load", 3), ("load", 4)})
        fails(around)
        ways.append("new")
        broken.clear()
        executed()
        assert around.resume() == 5
        assert executed() == {"load 5": 1}
        found = shown()
        assert found["load[0]"] == found["load[1]"] == Shown(COMPLETED, 1)
        assert get_run("last").state.type is COMPLETED
        assert get_run("last").task_run("load[2]").handled
        assert [text for text in said() if text.startswith("load[1] completed before and was not")]

    def test_failures_count_again_while_the_run_fails(self) -> None:
        ways = ["old"]

        @flow
        def around() -> int:
            if ways[-1] == "old":
                load(3)
            return load(5)

        broken.update({("load", 3)})
        fails(around)
        ways.append("new")
        broken.add(("load", 5))
        fails(around.resume)
        assert not get_run("last").task_run("load[0]").handled
        broken.clear()
        around.resume()
        assert get_run("last").task_run("load[0]").handled
