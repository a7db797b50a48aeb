"""The result storage: what is written is read again, and what is not what it was is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysched.errors import ResultLost, SettingsError
from raysched.results import storage
from raysched.results.envelope import OUT_OF_BAND_MIN_BYTES, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

ODD_NAMES = ("plain", "with spaces", "a#b", "a#1+2:c", "50%20off", "a::b", "ü?x=1&y", "nested/a")


@pytest.fixture(params=["path", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new directory of each kind of storage."""
    yield {
        "path": str(tmp_path / "results"),
        "file": f"file://{tmp_path}/results",
        "memory": f"memory://{tmp_path.name}",
    }[request.param]
    if request.param == "memory":
        import fsspec

        fsspec.filesystem("memory").store.clear()


def written(directory: str, *values: Any) -> list[str]:
    return storage.write(directory, "unit", [encode(value).parts() for value in values])


@pytest.mark.parametrize("name", ODD_NAMES)
def test_values_of_one_unit_are_in_one_object(url: str, name: str) -> None:
    directory = storage.directory_of(storage.open_storage(url), name)
    values = [{"a": 1}, np.arange(100_000), "text", b"", [np.zeros(9000), np.ones(9000)]]
    locations = written(directory, *values)
    assert len({storage.parse(location).url for location in locations}) == 1
    for location, value in zip(locations, values, strict=True):
        assert str(storage.load(location)) == str(value)
    (found,) = storage.objects(directory)
    assert found.size == sum(storage.parse(location).length for location in locations)
    storage.delete(found.url)
    storage.delete(found.url)
    assert list(storage.objects(directory)) == []


@given(st.lists(st.integers(0, 3 * OUT_OF_BAND_MIN_BYTES), min_size=1, max_size=20))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_of_any_size(tmp_path: Path, sizes: list[int]) -> None:
    arrays = [np.full(size, size % 251, dtype=np.uint8) for size in sizes]
    both = storage.write(str(tmp_path), "u", [encode(arrays).parts(), encode(arrays).settled()])
    for location in both:
        for array, found in zip(arrays, storage.load(location), strict=True):
            np.testing.assert_array_equal(array, found)


def test_more_pieces_than_one_call_of_the_system_takes(tmp_path: Path) -> None:
    arrays = [np.full(OUT_OF_BAND_MIN_BYTES, number % 251, np.uint8) for number in range(2500)]
    (location,) = written(str(tmp_path), arrays)
    assert all((a == b).all() for a, b in zip(arrays, storage.load(location), strict=True))


def test_buffers_that_are_not_flat(tmp_path: Path) -> None:
    fortran = np.asfortranarray(np.arange(60_000.0).reshape(200, 300))
    (location,) = written(str(tmp_path), fortran)
    np.testing.assert_array_equal(storage.load(location), fortran)


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    class Torn:
        def __iter__(self) -> Iterator[Any]:
            yield encode(1).parts()
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        storage.write(str(tmp_path), "u", Torn())
    assert list(storage.objects(str(tmp_path))) == []


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    # /dev/full is where a write fails as on a full disk.
    script = (
        "import os, resource, signal, sys\n"
        "from raysched.results import storage\n"
        "from raysched.results.envelope import encode\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    storage.write(sys.argv[1], 'u', [encode(b'x' * 5000).parts()])\n"
        "except OSError as error:\n"
        "    print(type(error).__name__, len(os.listdir(sys.argv[1])))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["OSError", "0"]


@pytest.mark.parametrize("place", [0, 1, -1])
def test_damaged_byte_is_noticed(tmp_path: Path, place: int) -> None:
    first, second = written(str(tmp_path), "x" * 100, "y" * 100)
    file = Path(storage.parse(second).url)
    data = bytearray(file.read_bytes())
    start = storage.parse(second).start
    data[start + place if place >= 0 else place] ^= 1
    file.write_bytes(data)
    assert storage.load(first) == "x" * 100
    with pytest.raises(ResultLost, match="is damaged") as caught:
        storage.read(second)
    assert second in str(caught.value)


def test_short_object_is_damaged(tmp_path: Path) -> None:
    (location,) = written(str(tmp_path), "x" * 100)
    file = Path(storage.parse(location).url)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ResultLost, match="is damaged"):
        storage.read(location)


def test_missing_object_is_told(url: str) -> None:
    directory = storage.directory_of(storage.open_storage(url), "run")
    (location,) = written(directory, "x")
    (found,) = storage.objects(directory)
    storage.delete(found.url)
    with pytest.raises(ResultLost, match="is missing") as caught:
        storage.read(location)
    assert location in str(caught.value)


@pytest.mark.parametrize("location", ["", "/a/b", "/a#1", "/a#1+:ab", "/a#x+2:ab", "#1+2:ab"])
def test_what_is_no_location(location: str) -> None:
    with pytest.raises(ResultLost, match="no location"):
        storage.read(location)


def test_value_that_cannot_be_unpickled_is_of_no_use(tmp_path: Path) -> None:
    (location,) = storage.write(str(tmp_path), "u", [(b"\x80\x05cno_such\nmodule\n.", ())])
    with pytest.raises(ResultLost, match=r"of no use here.*no_such"):
        storage.load(location)
    assert storage.read(location)


def test_storage_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (location,) = written(str(tmp_path), "x")
    file = Path(storage.parse(location).url)
    file.unlink()
    file.mkdir()
    with pytest.raises(ResultLost, match="cannot be read: IsADirectoryError"):
        storage.read(location)


@pytest.mark.parametrize("given", ["results", "~/results", "file://results"])
def test_local_paths_become_absolute(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    expected = "/home/anna/results" if given[0] == "~" else os.path.abspath("results")  # noqa: PTH100
    assert storage.open_storage(given) == expected


def test_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(SettingsError, match=r"RAYSCHED_RESULT_STORAGE=abfs://box/x: .*adlfs"):
        storage.open_storage("abfs://box/x")
    with pytest.raises(SettingsError, match=r"RAYSCHED_RESULT_STORAGE=abfs://box/x: .*adlfs"):
        storage.open_storage("abfs://box/x")


def test_unknown_protocol_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"known: s4.*s3://bucket/results"):
        storage.open_storage("s4://bucket/results")


def test_another_process_reads_it_without_fsspec(tmp_path: Path) -> None:
    (location,) = written(str(tmp_path / "a #b"), list(range(1000)))
    script = (
        "import sys\n"
        "from raysched.results import storage\n"
        "print(sum(storage.load(sys.argv[1])), 'fsspec' in sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, location], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["499500", "False"]


def test_digest_is_of_the_envelope(tmp_path: Path) -> None:
    import hashlib

    (location,) = written(str(tmp_path), np.arange(5000))
    envelope = encode(np.arange(5000)).join()
    assert storage.read(location) == envelope
    digest = hashlib.blake2b(envelope, digest_size=storage.DIGEST_BYTES).hexdigest()
    assert storage.parse(location).digest == digest
    assert decode(envelope).sum() == storage.load(location).sum()
