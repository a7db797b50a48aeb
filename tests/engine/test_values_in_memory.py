"""Small values that were let go of come back from the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from raysched import TaskFutureList, as_completed, flow, task, wiring
from raysched.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 3000


@pytest.fixture(autouse=True)
def little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAYSCHED_BACKEND", "inline")
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    monkeypatch.setenv("RAYSCHED_VALUES_IN_MEMORY_BYTES", "2000")
    settings.cache_clear()
    wiring.disconnect()
    yield
    wiring.disconnect()
    settings.cache_clear()


@task
def square(x: int) -> int:
    return x * x


@task
def add(values: list[int]) -> int:
    return sum(values)


@task(persist_result=False)
def forgetful(x: int) -> int:
    return -x


def kept_in_memory(futures: TaskFutureList[int]) -> int:
    return sum(
        group.values[index] is not None for group, indices in futures.parts for index in indices
    )


def test_results_are_there_as_often_as_they_are_asked_for() -> None:
    @flow
    def squares() -> list[list[int]]:
        futures = square.map(range(SIZE))
        first = futures.result()
        assert kept_in_memory(futures) < SIZE / 2
        return [first, futures.result(), [future.result() for future in reversed(futures)][::-1]]

    expected = [x * x for x in range(SIZE)]
    assert squares() == [expected, expected, expected]


def test_tasks_get_them_as_arguments() -> None:
    @flow
    def fourth_powers() -> int:
        squares = square.map(range(SIZE))
        squares.wait()
        assert kept_in_memory(squares) < SIZE / 2
        return add(square.map(squares).result())

    assert fourth_powers() == sum(x**4 for x in range(SIZE))


def test_a_stream_of_results_needs_no_more_memory() -> None:
    @flow
    def total() -> int:
        futures = square.map(range(SIZE))
        result = sum(future.result() for future in as_completed(futures))
        assert kept_in_memory(futures) < SIZE / 2
        return result

    assert total() == sum(x * x for x in range(SIZE))


def test_what_is_not_kept_in_the_database_stays_in_memory() -> None:
    @flow
    def negatives() -> list[int]:
        futures = forgetful.map(range(SIZE))
        futures.wait()
        assert kept_in_memory(futures) == SIZE
        return futures.result()

    assert negatives() == [-x for x in range(SIZE)]
