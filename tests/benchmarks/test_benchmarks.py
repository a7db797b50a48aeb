"""The benchmarks run, at sizes that say nothing about speed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.case import Measured
from benchmarks.cases import CASES
from benchmarks.granularity import metg
from benchmarks.load import CORES, LONG_SECONDS, lower_bound, mixed
from benchmarks.metrics import (
    DATABASE,
    DURATION,
    LOST,
    MISSING,
    RATE,
    REPEATED,
    TWICE,
    Aim,
    Of,
    Turn,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
RAYSCHED = ROOT / "raysched"
# One of each kind: the others differ from them by size, by the work or by the peer.
NAMES = (
    "map-bytes",
    "first-result",
    "tree",
    "resume-100k",
    "cache-misses-10k",
    "map-100k-postgresql",
    "traced-100k-all",
    "traced-items",
    "cluster-1000",
    "cold-import",
)
# A database grows by pages, and may have room for a few rows.
MAY_BE_NOTHING = {DATABASE.name, LOST.name}
# At any size.
HAS_TO_BE_NOTHING = {REPEATED.name, MISSING.name, TWICE.name}


def turn(seconds: float) -> Turn:
    return Turn(task_runs=100, seconds=seconds, driver_cpu=1.0, driver_peak=1, database=1)


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
            if row["metric"] in HAS_TO_BE_NOTHING:
                assert row["ours"] == 0, row
            else:
                assert row["ours"] > 0 or row["metric"] in MAY_BE_NOTHING, row
            assert row["met"] is None or row["aim"] is not None
    assert max(len(line) for line in done.stdout.splitlines()) <= 120

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


def test_all_that_cases_name_is_there() -> None:
    for case in CASES.values():
        for side in case.sides:
            if not side.missing():
                assert callable(resolve_name(f"{side.module}:{side.turn}")), case.name


class TestAims:
    """Whether an aim is met is told of the median."""

    @pytest.mark.parametrize(
        ("aim", "met"),
        [
            (Aim(RATE, 2), True),
            (Aim(RATE, 3), False),
            (Aim(RATE, 200, Of.OURS), True),
            (Aim(RATE, 201, Of.OURS), False),
            (Aim(DURATION, 0.5), True),
            (Aim(DURATION, -0.5, Of.DIFFERENCE), True),
            (Aim(DURATION, -0.6, Of.DIFFERENCE), False),
            (Aim(RATE), None),
        ],
    )
    def test_of_a_ratio_a_difference_or_ours(self, aim: Aim, met: bool | None) -> None:
        case = replace(next(iter(CASES.values())), aims=(aim,))
        ours = [turn(seconds) for seconds in (0.1, 0.5, 0.6)]
        peer = [turn(seconds) for seconds in (0.2, 1.0, 1.2)]
        (row,) = Measured(case, 100, ours, peer).rows()
        assert row.met is met

    def test_without_peer_there_is_no_ratio_to_meet(self) -> None:
        case = replace(next(iter(CASES.values())), peer=None, aims=(Aim(RATE, 2),))
        (row,) = Measured(case, 100, [turn(1)]).rows()
        assert row.met is None


class TestGranularity:
    def test_is_read_where_half_of_the_machine_works(self) -> None:
        assert metg([(1e-4, 0.1), (1e-2, 0.9)]) == pytest.approx(1e-3)

    def test_is_not_spoilt_by_a_disturbed_point_beyond(self) -> None:
        assert metg([(1.0, 0.4), (1e-4, 0.1), (1e-2, 0.9)]) == pytest.approx(1e-3)

    def test_is_the_smallest_measured_where_all_are_effective(self) -> None:
        assert metg([(1e-4, 0.5), (1e-2, 0.9)]) == 1e-4

    def test_is_unknown_where_none_is(self) -> None:
        assert metg([(1e-4, 0.1), (1e-2, 0.4)]) is None

    @given(st.floats(1e-6, 1e-2), st.floats(1e-6, 1.0))
    def test_of_a_fixed_price_a_task_is_twice_that(self, price: float, first: float) -> None:
        durations = [first * 1.1**step for step in range(200)]
        found = metg([(price + seconds, seconds / (price + seconds)) for seconds in durations])
        if first < price:
            assert found == pytest.approx(2 * price, rel=0.01)


@given(st.integers(1, 10_000))
def test_mixed_tasks_are_bounded_by_the_longest_and_by_the_cores(size: int) -> None:
    durations = mixed(size)
    assert len(durations) == size
    assert max(durations) == LONG_SECONDS
    assert lower_bound(durations) >= LONG_SECONDS
    assert lower_bound(durations) >= sum(durations) / CORES


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
