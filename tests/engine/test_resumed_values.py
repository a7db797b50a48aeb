"""Results of a run that goes on: read where they are, or made again when somebody needs them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.committed import Committed
from engine.going_on import Shown, broken, executed, fails, run, said, shown
from raysched import flow, get_run, task
from raysched.model.states import StateType
from raysched.settings import settings

COMPLETED = StateType.COMPLETED

LARGE = 100_000
"""Bytes: more than the database keeps."""

pytestmark = pytest.mark.usefixtures("committed", "nothing_ran")


class Fragile:
    """A result that cannot be read any more once it is broken."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "reading" in broken:
            raise TypeError("an older version has written this")
        self.__dict__.update(state)


@task(persist_result=False)
def first(n: int) -> int:
    run("first", n)
    return n


@task(persist_result=False)
def second(n: int) -> int:
    run("second", n)
    return n + 1


@task
def third(n: int) -> int:
    run("third", n)
    return n + 1


@task
def large(n: int) -> bytes:
    run("large", n)
    return bytes([n]) * LARGE


@task
def size(data: bytes) -> int:
    run("size", data[0])
    return len(data)


@task
def fragile(n: int) -> Fragile:
    run("fragile", n)
    return Fragile(n)


@task
def number(value: Fragile) -> int:
    run("number", value.number)
    return value.number


@task
def last(*values: Any) -> int:
    run("last")
    return len(values)


class TestWhatWasNotKept:
    def test_is_not_made_again_if_nobody_needs_it(self) -> None:
        @flow
        def around() -> int:
            return last.submit(third.submit(second.submit(first.submit(1)))).result()

        broken.add("last")
        fails(around)
        executed()
        broken.clear()
        assert around.resume() == 1
        assert executed() == {"last": 1}

    def test_is_made_again_with_what_it_needs(self) -> None:
        @flow
        def around() -> int:
            numbers = second.map(first.map([1, 2, 3]))
            return last.submit(numbers).result()

        broken.add("last")
        fails(around)
        executed()
        broken.clear()
        assert around.resume() == 1
        assert executed() == {
            **{f"{name} {n}": 1 for name in ("first", "second") for n in (1, 2, 3)},
            "last": 1,
        }
        assert shown()["second[1]"] == Shown(COMPLETED, 2)
        told = get_run("last").task_run("second[1]").history[-1].stop_reason
        assert told == "its value had not been kept and was computed again"

    def test_is_made_again_once_for_many(self) -> None:
        @flow
        def around() -> list[int]:
            one = first.submit(1)
            return third.map([one, one, one]).result()

        broken.add("third")
        fails(around)
        executed()
        broken.clear()
        assert around.resume() == [2, 2, 2]
        assert executed() == {"first 1": 1, "third 1": 3}

    def test_is_made_again_for_the_flow(self) -> None:
        @flow
        def around() -> int:
            value = second(first(1))
            last()
            return value

        broken.add("last")
        fails(around)
        executed()
        broken.clear()
        assert around.resume() == 2
        assert executed() == {"first 1": 1, "second 1": 1, "last": 1}

    def test_that_cannot_be_made_any_more_crashes_who_needs_it(self) -> None:
        @flow
        def around() -> int:
            value = first.submit(1)
            value.wait()
            return last.submit(value).result()

        broken.add("last")
        fails(around)
        broken.clear()
        broken.add("first")
        state = around.resume(return_state=True)
        assert state.type is StateType.FAILED
        found = shown()
        assert (found["first[0]"].state, found["last[0]"].state) == (COMPLETED, StateType.CRASHED)
        broken.clear()
        assert around.resume() == 1


@flow
def heavy() -> int:
    sizes = size.map(large.map([1, 2, 3])).result()
    last()
    more = large.submit(4)
    more.wait()
    return sum(sizes) + size.submit(more).result()


def results() -> list[Path]:
    """The files of the result storage."""
    return [
        file for file in Path(settings().resolved_result_storage()).rglob("*") if file.is_file()
    ]


class TestStoredResults:
    @pytest.fixture(autouse=True)
    def _failed(self, committed: Committed) -> None:
        del committed
        broken.add(("size", 2))
        fails(heavy)
        executed()
        broken.clear()

    def test_are_read_by_who_needs_them(self) -> None:
        assert heavy.resume() == 4 * LARGE
        again = executed()
        assert not {"large 1", "large 2", "large 3"} & again.keys()
        assert again["size 2"] == 1

    def test_that_are_missing_are_made_again(self) -> None:
        assert results()
        shutil.rmtree(settings().resolved_result_storage())
        assert heavy.resume() == 4 * LARGE
        again = executed()
        assert again["large 2"] == 1
        assert not {"large 1", "large 3", "size 1", "size 3"} & again.keys()
        history = get_run("last").task_run("large[1]").history
        assert history[-1].stop_reason.startswith("its stored value was missing or damaged")

    def test_that_are_damaged_are_made_again(self) -> None:
        for file in results():
            data = bytearray(file.read_bytes())
            data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
            file.write_bytes(bytes(data[: len(data) - 10]))
        assert heavy.resume() == 4 * LARGE
        assert executed()["large 2"] == 1

    def test_made_again_are_kept_for_the_next_time(self) -> None:
        shutil.rmtree(settings().resolved_result_storage())
        broken.add("last")
        fails(heavy.resume)
        executed()
        broken.clear()
        broken.add(("size", 4))
        fails(heavy.resume)
        executed()
        broken.clear()
        assert heavy.resume() == 4 * LARGE
        assert executed() == {"size 4": 1}


class TestWhatCannotBeReadAnyMore:
    def test_is_made_again_for_the_flow(self) -> None:
        @flow
        def around() -> int:
            value = fragile(1)
            last()
            return value.number

        broken.add("last")
        fails(around)
        executed()
        broken.clear()
        old = Fragile.__setstate__
        reads = []

        def refuse(self: Fragile, state: dict[str, Any]) -> None:
            reads.append(state)
            if len(reads) == 1:
                raise TypeError("an older version has written this")
            old(self, state)

        Fragile.__setstate__ = refuse  # type: ignore[method-assign]
        try:
            assert around.resume() == 1
        finally:
            Fragile.__setstate__ = old  # type: ignore[method-assign]
        assert executed() == {"fragile 1": 1, "last": 1}

    def test_is_made_again_for_a_task(self) -> None:
        @flow
        def around() -> int:
            value = fragile.submit(1)
            value.wait()
            return number.submit(value).result()

        broken.add("number")
        fails(around)
        executed()
        broken.clear()
        old = Fragile.__setstate__
        reads = []

        def refuse(self: Fragile, state: dict[str, Any]) -> None:
            reads.append(state)
            if len(reads) == 1:
                raise TypeError("an older version has written this")
            old(self, state)

        Fragile.__setstate__ = refuse  # type: ignore[method-assign]
        try:
            assert around.resume() == 1
        finally:
            Fragile.__setstate__ = old  # type: ignore[method-assign]
        assert executed() == {"fragile 1": 1, "number 1": 1}


def test_values_that_were_let_go_of_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    @flow
    def around() -> int:
        numbers = third.map(range(3000))
        last()
        return sum(numbers.result())

    monkeypatch.setenv("RAYSCHED_VALUES_IN_MEMORY_BYTES", "1000")
    settings.cache_clear()
    broken.add("last")
    fails(around)
    executed()
    broken.clear()
    assert around.resume() == sum(range(1, 3001))
    assert executed() == {"last": 1}
    assert "3000 of 3000 recorded results were reused" in said()
