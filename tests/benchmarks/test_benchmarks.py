"""The benchmarks run, at sizes that say nothing about speed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
RAYSCHED = ROOT / "raysched"
# One of each kind: the others differ from them by size or by a setting.
NAMES = ("submits", "map-1k", "calls", "waits-async", "waits-threads", "cold", "cold-inline")


def run(
    *command: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd="/",
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def address(local_ray: None) -> str:
    import ray

    address: str = ray.get_runtime_context().gcs_address
    return address


@pytest.mark.timeout(300)
def test_each_case_is_measured_told_and_drawn(address: str, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    options = ["--scale", "0.002", "--repeats", "1", "--address", address]
    for name in NAMES:
        options += ["--case", name]
    done = run("raysched", "bench", *options, "--output", str(results))
    assert done.returncode == 0, done.stderr

    written = json.loads(results.read_text(encoding="utf-8"))
    assert [case["name"] for case in written["cases"]] == list(NAMES)
    for case in written["cases"]:
        sides = 2 if case["peer"] else 1
        assert sum(len(turns) for turns in case["turns"].values()) == sides
        for row in case["rows"]:
            assert row["metric"] in done.stdout
            # A database grows by pages, and may have room for a few rows.
            assert row["ours"] > 0 or row["metric"].startswith("database"), row
    assert max(len(line) for line in done.stdout.splitlines()) <= 100

    drawn = run(
        "benchmarks.plots",
        str(results),
        str(tmp_path / "plots"),
        environment={"PYTHONPATH": str(ROOT)},
    )
    assert drawn.returncode == 0, drawn.stderr
    assert {plot.name for plot in (tmp_path / "plots").iterdir()} == {
        "ratios.svg",
        "driver-cpu.svg",
    }


def test_unknown_case_is_refused_with_the_list() -> None:
    done = run("raysched", "bench", "--case", "typo")
    assert done.returncode == 2
    assert "'typo'" in done.stderr
    assert "waits-threads" in done.stderr


def test_without_a_checkout_it_says_where_to_get_one(tmp_path: Path) -> None:
    shutil.copytree(RAYSCHED, tmp_path / "raysched")
    done = run("raysched", "bench", environment={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert "clone the repository" in done.stderr
