"""`raysched cache`, and what other commands tell of the cache."""

from pathlib import Path
from typing import Any

import pytest

from cli.commands import Command

FLOW = """
from raysched import INPUTS, TASK_SOURCE, flow, task


def clean(text: str) -> str:
    return text.strip()


@task(cache_policy=INPUTS + TASK_SOURCE)
def load(path: str, n: int = 1) -> str:
    return clean(path) * n


@task(cache_policy=INPUTS)
def total(parts: list[str]) -> int:
    return sum(map(len, parts))


@flow
def nightly(n: int = 1) -> int:
    return total(load.map(["a", "b", "c"], n=n))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nightly.py"
    path.write_text(FLOW, encoding="utf-8")
    return path


def run(raysched: Command, file: Path, n: int = 1) -> dict[str, Any]:
    done = raysched("run", str(file), "--backend", "inline", "-p", f"n={n}", "--json")
    record: dict[str, Any] = done.json()
    return record


def test_ls(raysched: Command, looking: Command, file: Path) -> None:
    assert "Nothing is cached" in looking("cache", "ls").out
    run(raysched, file)
    run(raysched, file, 2)
    tasks = looking("cache", "ls", "--json").json()
    assert [(each["name"], each["entries"], each["kept"]) for each in tasks] == [
        ("load", 6, 6),
        ("total", 2, 2),
    ]
    assert [line.split()[:3] for line in looking("cache", "ls").out.splitlines()[1:]] == [
        ["load", "6", "6"],
        ["total", "2", "2"],
    ]


def test_counts_show_what_was_cached(raysched: Command, looking: Command, file: Path) -> None:
    assert run(raysched, file)["tasks"] == {"COMPLETED": 4}
    assert run(raysched, file)["tasks"] == {"CACHED": 4}
    assert "cached" in looking("show", "last").out


def test_show(raysched: Command, looking: Command, file: Path) -> None:
    first = run(raysched, file)
    for _ in range(2):
        run(raysched, file)
    entries = looking("cache", "show", "load", "--json").json()
    assert sorted(entry["task_run"] for entry in entries) == ["load[0]", "load[1]", "load[2]"]
    key = entries[0]["key"]
    (entry,) = looking("cache", "show", key[:10], "--json").json()
    assert (entry["state"], entry["run"], entry["uses"]) == ("kept", first["id"], 2)
    assert sorted(entry["parts"]) == ["n", "path", "task source"]
    shown = looking("cache", "show", key[:10]).out
    assert key in shown
    assert "2 task runs" in shown
    assert "… and more" in looking("cache", "show", "load", "--limit", "2").out
    done = looking("cache", "show", "parse")
    assert done.code == 2
    assert "it has results of load, total" in done.err


def test_clear(raysched: Command, looking: Command, file: Path) -> None:
    run(raysched, file)
    assert looking("cache", "clear").code == 2
    assert looking("cache", "clear", "load", "--all").code == 2
    assert "Would forget 3" in looking("cache", "clear", "load", "--dry-run").out
    done = looking("cache", "clear", "load")
    assert done.code == 2
    assert "--yes" in done.err
    assert "Forgot 3" in looking("cache", "clear", "load", "--yes").out
    assert run(raysched, file)["tasks"] == {"COMPLETED": 3, "CACHED": 1}
    assert "Nothing to clear" in looking("cache", "clear", "--older-than", "1h").out
    cleared = looking("cache", "clear", "--all", "--yes", "--json").json()
    assert cleared == {"dry_run": False, "entries": 4}
    assert "Nothing is cached" in looking("cache", "ls").out


def test_why_of_a_hit(raysched: Command, looking: Command, file: Path) -> None:
    first = run(raysched, file)
    run(raysched, file)
    verdict = f"`load[1]` CACHED: the result of {first['id'][:8]}/load[1]"
    assert verdict in looking("why", "last", "load[1]").out
    assert looking("why", "last", "load[1]", "--json").json()["verdict"] == verdict


def test_why_of_misses(raysched: Command, looking: Command, file: Path) -> None:
    run(raysched, file)
    assert _cache(looking) == "cache miss: no result of the task was made before this flow run"
    run(raysched, file, 2)
    assert _cache(looking) == "cache miss: argument 'n' differs"
    file.write_text(FLOW.replace("text.strip()", "text.lower()"), encoding="utf-8")
    run(raysched, file)
    assert _cache(looking) == "cache miss: the task's code has changed"
    assert "the task's code has changed" in looking("why", "last", "load[1]").out


def _cache(looking: Command) -> object:
    return looking("why", "last", "load[1]", "--json").json()["cache"]
