"""`max_parallel` of flows and tasks: a limit of what runs at once, wherever it runs."""

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import pytest

from raysched import ThreadPoolTaskRunner, flow, task

MANY = 8


def enter(folder: Path) -> Path:
    """Leave a mark for as long as a task run goes on."""
    mark = folder / uuid4().hex
    mark.touch()
    return mark


def leave(folder: Path, mark: Path) -> int:
    """Return how many there are at this moment."""
    number = len(list(folder.iterdir()))
    mark.unlink()
    return number


@task
def work(folder: Path) -> int:
    """Return how many run at once."""
    mark = enter(folder)
    time.sleep(0.02)
    return leave(folder, mark)


@task
async def wait(folder: Path) -> int:
    """Return how many wait at once."""
    mark = enter(folder)
    await asyncio.sleep(0.02)
    return leave(folder, mark)


@flow
def both(folder: Path, of_task: int | None) -> list[int]:
    """Run many of each kind; return how many of its kind each saw."""
    seen = []
    for each in (work, wait):
        own = folder / each.name
        own.mkdir()
        limited = each.with_options(max_parallel=of_task)
        seen += limited.map([own] * MANY).result()
    return seen


@pytest.mark.parametrize("limit", [1, 3])
def test_of_a_flow_holds(tmp_path: Path, limit: int) -> None:
    seen = both.with_options(max_parallel=limit)(tmp_path, None)
    assert (len(seen), max(seen) <= limit) == (2 * MANY, True)


@pytest.mark.parametrize("limit", [1, 3])
def test_of_a_task_holds(tmp_path: Path, limit: int) -> None:
    seen = both(tmp_path, limit)
    assert (len(seen), max(seen) <= limit) == (2 * MANY, True)


@pytest.mark.parametrize(("of_flow", "of_task"), [(2, 5), (5, 2)])
def test_of_both_hold_both(tmp_path: Path, of_flow: int, of_task: int) -> None:
    runner = ThreadPoolTaskRunner(max_workers=of_flow)
    assert max(both.with_options(task_runner=runner)(tmp_path, of_task)) <= 2


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert max(both(tmp_path, None)) > 1
