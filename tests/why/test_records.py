"""What docs/json.md promises of `raysched why --json` is what it prints, key by key."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from raysched.cli.why_records import why_record
from raysched.model.values import CrashKind, Evidence
from why import stories
from why.around import run, told
from why.kept import crash, keep_crashed

PAGE = Path(__file__).parents[2] / "docs" / "json.md"


def promised(heading: str) -> set[str]:
    """Returns the keys in the first column of a section's table."""
    _, _, rest = PAGE.read_text("utf-8").partition(f"# {heading}\n")
    section = rest.partition("\n#")[0]
    cells = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}


def parts(heading: str, key: str) -> set[str]:
    """Returns the keys of the objects that a row of a section's table lists."""
    _, _, rest = PAGE.read_text("utf-8").partition(f"# {heading}\n")
    (row,) = re.findall(rf"^\| `{key}` \| (.+) \|$", rest.partition("\n#")[0], re.MULTILINE)
    return set(re.findall(r'"(\w+)"', row))


@pytest.fixture
def record() -> Any:
    run(stories.nightly)
    return json.loads(told("last", "--json"))


def test_of_a_run(record: Any) -> None:
    assert set(record) == promised("Why a run failed")
    assert set(record["graph"]) | set(record["graph"]["groups"][0]) | set(
        record["graph"]["needs"][0]
    ) == parts("Why a run failed", "graph")
    assert {key for step in record["next"] for key in step} == parts("Why a run failed", "next")


def test_of_a_cause(record: Any) -> None:
    (cause,) = record["causes"]
    assert set(cause) == promised("A cause")
    assert set(cause["error"]) == promised("An error")
    for key in ("attempts", "logs"):
        assert set(cause[key][0]) == parts("A cause", key)
    assert set(cause["seen"]) == parts("A cause", "seen")
    assert set(cause["source"]) | set(cause["source"]["lines"][0]) == parts("A cause", "source")


def test_of_a_crash() -> None:
    error = crash(CrashKind.WORKER_DIED, Evidence(signal="SIGKILL", node_id="7"))
    keep_crashed(error, flow="other")
    record = why_record(keep_crashed(error).why())
    (cause,) = record["causes"]
    assert cause["error"]["evidence"] == {"signal": "SIGKILL", "node_id": "7"}
    assert {key for each in cause["before"] for key in each} == parts("A cause", "before")
    assert {key for each in cause["advice"] for key in each} == parts("A cause", "advice")


def test_of_a_comparison() -> None:
    run(stories.choosing)
    run(lambda: stories.choosing(0))
    record = json.loads(told("last", "--json"))
    success = record["last_success"]
    assert set(success) | set(success["changes"][0]) == parts("Why a run failed", "last_success")


def test_of_what_waits() -> None:
    run(stories.fine)
    record = json.loads(told("--waiting", "last", "--json"))
    text = PAGE.read_text("utf-8")
    (printed,) = re.findall(r"`raysched why --waiting RUN --json` prints `(\{.+\})`", text)
    assert set(record) == set(re.findall(r'"(\w+)"', printed))
