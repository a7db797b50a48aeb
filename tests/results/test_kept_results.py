"""Which large results of flows are kept, what is said of the others, and what follows from loss."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from raysched import flow, task
from raysched.backends.inline import InlineBackend
from raysched.client import get_run
from raysched.errors import SettingsError
from raysched.model.rows import ENGINE_LOGGER
from raysched.results import storage
from raysched.settings import settings
from raysched.wiring import Configuration, configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = 100_000

made: list[str] = []


@task
def make(size: int) -> bytes:
    made.append(f"make {size}")
    return b"x" * size


@task
def measure(value: bytes) -> int:
    made.append("measure")
    return len(value)


@task
def boom(*_: Any) -> int:
    raise ValueError("not yet")


class Elsewhere(InlineBackend):
    """As if its units ran on other machines, too."""

    def shares_files(self) -> bool:
        return False


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Have flows run on a backend, with settings."""

    def use(backend: InlineBackend | None = None, **given: object) -> None:
        for name, value in given.items():
            monkeypatch.setenv(f"RAYSCHED_{name.upper()}", str(value))
        settings.cache_clear()
        configure(Configuration(backend or InlineBackend()))

    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    made.clear()
    before = configure(Configuration())
    yield use
    configure(before)
    settings.cache_clear()


def kept_in(directory: Path) -> list[int]:
    """Return the sizes of the objects, in thousands of bytes."""
    return sorted(found.size // 1000 for found in storage.objects(str(directory)))


@flow
def sizes(*wanted: int) -> list[int]:
    return [len(value) for value in make.map(list(wanted)).result()]


class TestKeeping:
    def test_large_results_are_kept_by_default(self, use: Any, tmp_path: Path) -> None:
        use()
        sizes(LARGE, 10, 2 * LARGE)
        assert kept_in(tmp_path / "results" / get_run("last").id) == [100, 200]
        assert get_run("last").message == ""

    def test_not_those_of_tasks_that_say_so(self, use: Any, tmp_path: Path) -> None:
        @flow
        def around() -> int:
            return len(make.with_options(persist_result=False)(LARGE))

        use()
        assert around() == LARGE
        assert kept_in(tmp_path / "results") == []
        assert get_run("last").message == ""

    def test_what_is_too_large_is_told_once(
        self, use: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        use(kept_result_max_bytes=150_000)
        assert sizes(LARGE, 2 * LARGE, 3 * LARGE) == [LARGE, 2 * LARGE, 3 * LARGE]
        assert kept_in(tmp_path / "results") == [100]
        run = get_run("last")
        reason = "larger than RAYSCHED_KEPT_RESULT_MAX_BYTES=150,000"
        assert run.message == f"2 results (500 kB) were not kept: {reason}"
        told = f"some results are not kept: {reason}"
        assert [log.message for log in run.logs()] == [told]
        assert [record.message for record in caplog.records] == [told]

    def test_what_is_too_much_is_told_once(self, use: Any, tmp_path: Path) -> None:
        use(kept_run_max_bytes=250_000)

        @flow
        def around() -> None:
            for _ in range(5):
                make(LARGE)

        around()
        # The limit is looked at before each.
        assert kept_in(tmp_path / "results") == [100] * 3
        run = get_run("last")
        assert run.message.startswith("2 results (200 kB) were not kept: the run has RAYSCHED_KEPT")
        assert len(list(run.logs())) == 1

    def test_storage_that_cannot_be_written_is_told_once(self, use: Any, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch()
        use(result_storage=f"{file}/below")
        assert sizes(LARGE, LARGE) == [LARGE, LARGE]
        run = get_run("last")
        (log,) = run.logs()
        assert (log.level, log.logger) == (logging.WARNING, ENGINE_LOGGER)
        assert "could not be written" in log.message
        assert "NotADirectoryError" in log.message
        assert run.message.startswith("2 results (200 kB) were not kept: the result storage could")

    def test_a_directory_of_one_of_several_nodes_is_not_used(
        self, use: Any, tmp_path: Path
    ) -> None:
        use(Elsewhere())
        assert sizes(LARGE, 10) == [LARGE, 10]
        assert not (tmp_path / "results").exists()
        (log,) = get_run("last").logs()
        assert "the cluster has several nodes" in log.message
        assert "RAYSCHED_RESULT_STORAGE" in log.message

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_a_directory_that_is_named_is_believed_to_be_shared(
        self, use: Any, tmp_path: Path, scheme: str
    ) -> None:
        use(Elsewhere(), result_storage=f"{scheme}{tmp_path}/shared")
        sizes(LARGE)
        assert kept_in(tmp_path / "shared") == [100]

    def test_of_tasks_in_tasks_nothing_is_written(self, use: Any, tmp_path: Path) -> None:
        @task
        def outer() -> int:
            return len(make(LARGE))

        @flow
        def around() -> int:
            return outer()

        use()
        assert around() == LARGE
        assert not (tmp_path / "results").exists()

    def test_storage_that_does_not_exist_is_told_at_once(self, use: Any) -> None:
        use(result_storage="s4://bucket")
        with pytest.raises(SettingsError, match="RAYSCHED_RESULT_STORAGE=s4://bucket"):
            sizes(1)

    def test_any_url_of_fsspec(self, use: Any) -> None:
        use(result_storage="memory://kept/results")
        sizes(LARGE)
        (found,) = storage.objects(f"memory://kept/results/{get_run('last').id}")
        assert found.size // 1000 == 100
        storage.delete(found.url)


@flow
def twice(fail: str) -> int:
    value = make.submit(LARGE)
    value.wait()
    if Path(fail).exists():
        boom(value)
    return measure.submit(value).result() + len(value.result())


class TestGoingOn:
    def go_on(self, use: Any, tmp_path: Path, harm: Callable[[], object] = bool) -> Any:
        """Run the flow, do harm, and go on with it as another process would."""
        fail = tmp_path / "fail"
        fail.touch()
        with pytest.raises(ValueError, match="not yet"):
            twice(str(fail))
        fail.unlink()
        harm()
        made.clear()
        use()
        assert twice.resume("last") == 2 * LARGE
        return get_run("last")

    def test_with_what_is_kept(self, use: Any, tmp_path: Path) -> None:
        use()
        self.go_on(use, tmp_path)
        assert made == ["measure"]

    def test_without_what_is_missing(self, use: Any, tmp_path: Path) -> None:
        use()

        def harm() -> None:
            for found in list(storage.objects(str(tmp_path / "results"))):
                storage.delete(found.url)

        run = self.go_on(use, tmp_path, harm)
        assert made == [f"make {LARGE}", "measure"]
        assert any("is missing: it is computed again" in log.message for log in run.logs())

    def test_without_what_is_damaged(self, use: Any, tmp_path: Path) -> None:
        use()

        def harm() -> None:
            (found,) = storage.objects(str(tmp_path / "results"))
            data = bytearray(Path(found.url).read_bytes())
            data[LARGE // 2] ^= 1
            Path(found.url).write_bytes(data)

        run = self.go_on(use, tmp_path, harm)
        assert made == [f"make {LARGE}", "measure"]
        assert any("is damaged: it is computed again" in log.message for log in run.logs())

    def test_without_what_was_not_kept(self, use: Any, tmp_path: Path) -> None:
        use(kept_result_max_bytes=1)
        self.go_on(use, tmp_path)
        assert made == [f"make {LARGE}", "measure"]

    def test_what_was_kept_counts(self, use: Any, tmp_path: Path) -> None:
        use(kept_run_max_bytes=50_000)
        run = self.go_on(use, tmp_path, lambda: None)
        assert kept_in(tmp_path / "results" / run.id) == [100]
        assert run.message == ""
