"""Cached results through the public face: waves, equal calls, and several processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from policies import maker
from raysched import (
    INPUTS,
    StateType,
    flow,
    get_run,
    task,
    unmapped,
)
from raysched.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
from policies.cached import CACHED, COMPLETED, Log, note

SECONDS = 60
"""How long another process may take to come to a point (seconds)."""


@task(cache_policy=INPUTS - "log")
def double(x: int, log: str) -> int:
    note(log, f"double{x}")
    return 2 * x


@task(cache_policy=INPUTS - "log")
def total(numbers: list[int], log: str) -> int:
    note(log, "total")
    return sum(numbers)


@task
def rounded(x: float) -> int:
    return round(x)


@task
def many(count: int) -> list[str]:
    return [f"word {number}" for number in range(count)]


@task(cache_policy=INPUTS - "log")
def longest(words: list[str], log: str) -> str:
    note(log, "longest")
    return max(words, key=len)


@flow
def pipeline(xs: list[float], log: str) -> int:
    whole = rounded.map(xs)
    return total.submit(double.map(whole, unmapped(log)), log).result()


@pytest.mark.usefixtures("backend")
class TestOnBothBackends:
    def test_a_second_run_runs_nothing(self, log: Log) -> None:
        assert pipeline([1.0, 2.0, 3.0], str(log.path)) == 12
        assert sorted(log.taken()) == ["double1", "double2", "double3", "total"]
        assert pipeline([1.0, 2.0, 3.0], str(log.path)) == 12
        assert log.taken() == []
        counts = get_run("last").counts
        assert counts == {COMPLETED: 3, CACHED: 4}

    def test_an_unchanged_result_stops_the_wave(self, log: Log) -> None:
        pipeline([1.0, 2.0], str(log.path))
        log.taken()
        assert pipeline([1.2, 1.9], str(log.path)) == 6
        assert log.taken() == []

    def test_a_changed_result_goes_on(self, log: Log) -> None:
        pipeline([1.0, 2.0], str(log.path))
        log.taken()
        assert pipeline([1.0, 3.0], str(log.path)) == 8
        assert sorted(log.taken()) == ["double3", "total"]

    def test_a_large_result_counts_by_its_content(self, log: Log) -> None:
        @flow
        def words(count: int) -> str:
            return longest.submit(many.submit(count), str(log.path)).result()

        for _ in range(2):
            assert words(10_000) == "word 1000"
        assert words(20_000) == "word 10000"
        assert log.taken() == ["longest", "longest"]

    def test_equal_calls_of_one_run_are_made_once(self, log: Log) -> None:
        @flow
        def equal() -> list[int]:
            return double.map([4] * 50, unmapped(str(log.path))).result()

        assert equal() == [8] * 50
        assert log.taken() == ["double4"]


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return what starts a process that needs one result, in a database of its own."""
    home = str(tmp_path / "home")
    monkeypatch.setenv("RAYSCHED_HOME", home)
    settings.cache_clear()
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, maker.__file__, str(tmp_path)],
            env=os.environ | {"RAYSCHED_HOME": home, "RAYSCHED_BACKEND": "inline"},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    settings.cache_clear()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


@pytest.mark.usefixtures("here")
def test_the_example_of_the_page(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "caching.md"
    (example,) = re.findall(r"```python\n(.+?)```", page.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": __name__}
    exec(example, names)  # noqa: S102 - it is the page's own
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text("some words to count")

    def counts() -> dict[StateType, int]:
        assert names["count"](tmp_path) == 8
        return dict(get_run("last").counts)

    assert [counts(), counts()] == [{COMPLETED: 3}, {CACHED: 3}]
    (tmp_path / "two.txt").write_text("other words to count")
    assert counts() == {COMPLETED: 2, CACHED: 1}


class TestTwoProcesses:
    def _first_and_second(
        self, tmp_path: Path, start: Callable[[], subprocess.Popen[str]]
    ) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
        first = start()
        until((tmp_path / "began").exists)
        maker_id = get_run("last").id
        second = start()
        until(lambda: get_run("last").id != maker_id and _reasons() != [])
        reason = f"its result is being made by {maker_id[:8]}/make[0]"
        assert _reasons() == [reason]
        assert [wait.reason for wait in get_run("last").waiting().waits] == [reason]
        return first, second

    def test_make_what_both_need_once(
        self, tmp_path: Path, start: Callable[[], subprocess.Popen[str]]
    ) -> None:
        processes = self._first_and_second(tmp_path, start)
        (tmp_path / "go").touch()
        assert [each.communicate()[0] for each in processes] == ["made", "made"]
        assert (tmp_path / "began").read_text() == "x\n"

    def test_the_second_takes_over_from_one_that_was_killed(
        self, tmp_path: Path, start: Callable[[], subprocess.Popen[str]]
    ) -> None:
        first, second = self._first_and_second(tmp_path, start)
        first.kill()
        first.wait()
        (tmp_path / "go").touch()
        assert second.communicate()[0] == "made"
        assert (tmp_path / "began").read_text() == "x\nx\n"


def _reasons() -> list[str]:
    return [each.state.message for each in get_run("last").task_runs() if each.state.message]
