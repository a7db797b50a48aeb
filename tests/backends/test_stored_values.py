"""Large values in the result storage, over all backends: kept by the worker, read by the next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backends import jobs
from raysched.graph.payload import dump_call, reduce_dependency
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.values import LargeValue
from raysched.results import storage
from raysched.results.envelope import encode
from raysched.worker.protocol import (
    LIST,
    RECORDED,
    STORED,
    RunHeader,
    SlotValue,
    Stage,
    Unit,
    encode_header,
)

if TYPE_CHECKING:
    import numpy as np

    from backends.harness import Ended, Harness

LARGE = 100_000
"""Numbers in an array of 800 kB."""

READ = (
    "import sys\n"
    "from raysched.results import storage\n"
    "print(*(storage.load(location).size for location in sys.argv[1:]))\n"
)


class Future:
    """Pickles as the next slot, like the futures of the face."""

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_dependency(self)

    def identity(self) -> bytes:
        return b""

    def edge(self) -> Any:
        return None


def run_in(
    harness: Harness,
    directory: Path,
    *calls: tuple[Any, ...],
    limit: int = 10**9,
    slots: tuple[SlotValue, ...] = (),
    function: Any = jobs.zeros,
    **options: Any,
) -> Ended:
    """Run a unit that keeps its large values in a directory."""
    header = RunHeader("0" * 32, "calm-heron", "nightly", storage=str(directory))
    stage = Stage(
        "job",
        mapped=False,
        shared=b"",
        tags=(),
        numbers=range(len(calls)),
        attempts=[1] * len(calls),
        payloads=[dump_call((args, {}))[0] for args in calls],
        slots=[slots] * len(calls),
    )
    encoded = encode_header(header._replace(kept_max_bytes=limit))
    unit = Unit(0, encoded, (stage,), stored=bool(slots))
    spec = TaskSpec("job", function, **options)
    return harness.finish(harness.submit_unit(spec, unit))


def locations(ended: Ended) -> list[str]:
    """Return the locations of the large values."""
    values = [ended.values[position] for position in sorted(ended.values)]
    return [value.location for value in values if isinstance(value, LargeValue)]


class TestKeeping:
    def test_another_process_reads_them_from_the_storage_alone(
        self, harness: Harness, tmp_path: Path
    ) -> None:
        ended = run_in(harness, tmp_path / "a #b", (LARGE,), (3,), (2 * LARGE,))
        found = locations(ended)
        assert len({storage.parse(each).url for each in found}) == 1
        ran = subprocess.run(
            [sys.executable, "-c", READ, *found], capture_output=True, text=True, check=True
        )
        assert ran.stdout.split() == [str(LARGE), str(2 * LARGE)]
        assert isinstance(ended.values[1], bytes)
        assert ended.unkept == ""

    def test_small_ones_are_not_written(self, harness: Harness, tmp_path: Path) -> None:
        run_in(harness, tmp_path, (3,))
        assert list(storage.objects(str(tmp_path))) == []

    def test_only_those_that_are_to_be_kept(self, harness: Harness, tmp_path: Path) -> None:
        ended = run_in(harness, tmp_path, (LARGE,), (2 * LARGE,), (LARGE,), limit=1_000_000)
        assert [bool(each) for each in locations(ended)] == [True, False, True]
        assert [value.size for value in harness.values(ended)] == [LARGE, 2 * LARGE, LARGE]
        ended = run_in(harness, tmp_path / "none", (LARGE,), persist_result=False)
        assert locations(ended) == [""]
        assert not (tmp_path / "none").exists()

    def test_durable_ones_too(self, harness: Harness, tmp_path: Path) -> None:
        (location,) = locations(run_in(harness, tmp_path, (LARGE,), idempotent=False))
        assert storage.load(location).size == LARGE

    def test_storage_that_cannot_be_written_harms_nothing(
        self, harness: Harness, tmp_path: Path
    ) -> None:
        file = tmp_path / "file"
        file.touch()
        for _ in range(2):
            ended = run_in(harness, file / "below", (LARGE,), (LARGE,))
            assert set(ended.states.values()) == {StateType.COMPLETED}
            assert locations(ended) == ["", ""]
            assert [value.size for value in harness.values(ended)] == [LARGE, LARGE]
            assert f"{file}/below: NotADirectoryError" in ended.unkept

    def test_by_a_serializer(self, harness: Harness, tmp_path: Path) -> None:
        ended = run_in(harness, tmp_path, (LARGE,), result_serializer="compressed/pickle")
        assert harness.value(ended).size == LARGE
        assert list(storage.objects(str(tmp_path))) == []

    def test_value_that_does_not_fit_is_the_users_failure(
        self, harness: Harness, tmp_path: Path
    ) -> None:
        ended = run_in(harness, tmp_path, (LARGE,), result_serializer="json")
        assert ended.states[0] == StateType.FAILED
        assert "the result of task 'job' does not fit 'json': result is of type ndarray" in (
            ended.error.message
        )


class TestReading:
    def test_stored_values_are_arguments(self, harness: Harness, tmp_path: Path) -> None:
        kept = locations(run_in(harness, tmp_path, (LARGE,), (2 * LARGE,)))
        slots = ((STORED, kept[0]),)
        ended = run_in(
            harness, tmp_path, (Future(),), (Future(),), slots=slots, function=jobs.increase
        )
        assert [total for total, _ in harness.values(ended)] == [LARGE, LARGE]

    def test_in_lists_beside_recorded_ones(self, harness: Harness, tmp_path: Path) -> None:
        (location,) = locations(run_in(harness, tmp_path, (LARGE,)))
        recorded = (RECORDED, ("make[0]", encode([1]).join()))
        slots = ((LIST, [(STORED, location), recorded, recorded]),)
        ended = run_in(harness, tmp_path, (Future(),), slots=slots, function=jobs.describe)
        (((array, first, second),), _) = harness.value(ended)
        assert array.size == LARGE
        assert first == second == [1]

    @pytest.mark.parametrize("harm", ["missing", "damaged"])
    def test_without_them_nothing_begins(self, harness: Harness, tmp_path: Path, harm: str) -> None:
        there = locations(run_in(harness, tmp_path, (LARGE,)))
        gone = locations(run_in(harness, tmp_path, (LARGE,)))
        file = Path(storage.parse(gone[0]).url)
        if harm == "missing":
            file.unlink()
        else:
            data = bytearray(file.read_bytes())
            data[-1] ^= 1
            file.write_bytes(data)
        mark = tmp_path / "mark"
        slots = ((STORED, there[0]), (STORED, gone[0]))
        call = (str(mark), Future(), Future())
        ended = run_in(harness, tmp_path, call, slots=slots, function=mark_and_take)
        assert list(ended.missing) == gone
        assert f"is {harm}" in ended.missing[gone[0]]
        assert not ended.states
        assert not mark.exists()

    def test_what_cannot_be_unpickled_counts_as_lost(
        self, harness: Harness, tmp_path: Path
    ) -> None:
        old = b"\x80\x05cno_such\nmodule\n."
        (location,) = storage.write(str(tmp_path), "u", [(old, ())])
        slots = ((STORED, location), (RECORDED, ("make[3]", old)))
        ended = run_in(harness, tmp_path, (Future(), Future()), slots=slots, function=jobs.describe)
        assert ended.missing.keys() == {location, "make[3]"}
        assert all("no_such" in problem for problem in ended.missing.values())

    def test_other_units_go_on(self, harness: Harness, tmp_path: Path) -> None:
        slots = ((STORED, f"{tmp_path}/none#0+1:00"),)
        run_in(harness, tmp_path, (Future(),), slots=slots, function=jobs.describe)
        assert harness.values(harness.run(jobs.add, (1,))) == [2]


def mark_and_take(path: str, *values: np.ndarray[Any, Any]) -> int:
    Path(path).touch()
    return len(values)


def test_all_of_one_machine_shares_its_files(harness: Harness) -> None:
    assert harness.backend.shares_files()
