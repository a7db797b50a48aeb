"""What task runs leave behind is put back, or noticed once."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysched.worker.hygiene import LOOK_NS, MEMORY_NS, Hygiene, lasting
from raysched.worker.leaks import GROWTH_MIN_BYTES

QUICK_NS = 1000


@pytest.fixture(params=[True, False], ids=["dedicated", "shared"])
def hygiene(request: pytest.FixtureRequest) -> Iterator[Hygiene]:
    watch = Hygiene(request.node.name, dedicated=request.param)
    yield watch
    watch.end()


class TestWhatIsPutBack:
    @pytest.mark.parametrize("took", [QUICK_NS, LOOK_NS, MEMORY_NS])
    def test_quiet_item_leaves_nothing(self, took: int) -> None:
        watch = Hygiene("quiet", dedicated=False)
        assert not watch.after_item(took)
        assert not watch.end()

    def test_directory(self, hygiene: Hygiene, tmp_path: Path) -> None:
        before = Path.cwd()
        os.chdir(tmp_path)
        hygiene.after_item(QUICK_NS)
        assert Path.cwd() == before

    def test_directory_by_descriptor(self, hygiene: Hygiene, tmp_path: Path) -> None:
        before = Path.cwd()
        descriptor = os.open(tmp_path, os.O_RDONLY)
        os.fchdir(descriptor)
        os.close(descriptor)
        hygiene.after_item(QUICK_NS)
        assert Path.cwd() == before

    def test_directory_by_a_function_that_was_imported_before(self, tmp_path: Path) -> None:
        before, imported_before = Path.cwd(), os.chdir
        watch = Hygiene("imported", dedicated=False)
        imported_before(tmp_path)
        watch.after_item(LOOK_NS)
        assert Path.cwd() == before
        imported_before(tmp_path)
        watch.end()
        assert Path.cwd() == before

    def test_directory_that_was_removed(self, hygiene: Hygiene, tmp_path: Path) -> None:
        before = Path.cwd()
        gone = tmp_path / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        assert hygiene.after_item(QUICK_NS) == []
        assert Path.cwd() == before

    def test_directory_that_cannot_be_entered_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = tmp_path / "first"
        first.mkdir()
        monkeypatch.chdir(first)
        watch = Hygiene("moved", dedicated=False)
        os.chdir(tmp_path)
        first.rmdir()
        (notice,) = watch.after_item(QUICK_NS)
        assert str(first) in notice
        assert watch.after_item(LOOK_NS) == []
        watch.end()

    def test_variables_set_changed_and_removed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAYSCHED_TEST_CHANGED", "before")
        monkeypatch.setenv("RAYSCHED_TEST_REMOVED", "before")
        before = dict(os.environ)
        with Restored():
            os.environ["RAYSCHED_TEST_NEW"] = "new"
            os.environ["RAYSCHED_TEST_CHANGED"] = "twice"
            os.environ["RAYSCHED_TEST_CHANGED"] = "after"
            del os.environ["RAYSCHED_TEST_REMOVED"]
        assert dict(os.environ) == before

    def test_all_variables_cleared(self) -> None:
        before = dict(os.environ)
        with Restored():
            os.environ.clear()
        assert dict(os.environ) == before

    def test_variable_set_without_the_mapping(self) -> None:
        with Restored():
            os.putenv("RAYSCHED_TEST_DIRECT", "1")
        assert _of_child("RAYSCHED_TEST_DIRECT") == ""

    def test_each_item_begins_with_the_same(self, hygiene: Hygiene) -> None:
        for value in "ab":
            assert "RAYSCHED_TEST_EACH" not in os.environ
            os.environ["RAYSCHED_TEST_EACH"] = value
            hygiene.after_item(QUICK_NS)
        assert "RAYSCHED_TEST_EACH" not in os.environ

    def test_unit_around_another_one(self, tmp_path: Path) -> None:
        """A task that calls a task: what the outer one has changed is there until its own end."""
        before = Path.cwd()
        outer = Hygiene("outer", dedicated=True)
        os.chdir(tmp_path)
        os.environ["RAYSCHED_TEST_NESTED"] = "outer"
        inner = Hygiene("inner", dedicated=False)
        os.chdir("/")
        os.environ["RAYSCHED_TEST_NESTED"] = "inner"
        inner.after_item(QUICK_NS)
        inner.end()
        assert Path.cwd() == tmp_path
        assert os.environ["RAYSCHED_TEST_NESTED"] == "outer"
        outer.after_item(QUICK_NS)
        outer.end()
        assert Path.cwd() == before
        assert "RAYSCHED_TEST_NESTED" not in os.environ

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_handler(self, hygiene: Hygiene, number: int) -> None:
        before = signal.getsignal(number)
        signal.signal(number, signal.SIG_IGN)
        hygiene.after_item(QUICK_NS)
        assert signal.getsignal(number) is before

    def test_what_another_thread_changed(self) -> None:
        """It counts where the process is there for units only; elsewhere it may be anybody's."""
        for dedicated in (True, False):
            watch = Hygiene("other thread", dedicated=dedicated)
            _in_a_thread(lambda: os.environ.__setitem__("RAYSCHED_TEST_THREAD", "1"))
            watch.after_item(QUICK_NS)
            assert ("RAYSCHED_TEST_THREAD" in os.environ) is not dedicated
            watch.end()
        del os.environ["RAYSCHED_TEST_THREAD"]

    def test_after_the_unit_nothing_is_touched(self) -> None:
        Hygiene("over", dedicated=False).end()
        os.environ["RAYSCHED_TEST_OVER"] = "1"
        Hygiene("next", dedicated=False).end()
        assert os.environ.pop("RAYSCHED_TEST_OVER") == "1"

    def test_functions_are_themselves_outside_units(self) -> None:
        import posix

        Hygiene("over", dedicated=False).end()
        originals = [posix.chdir, posix.fchdir, posix.putenv, posix.unsetenv]
        assert [os.chdir, os.fchdir, os.putenv, os.unsetenv] == originals


class TestWhatStays:
    def test_what_a_module_sets_when_it_is_imported(
        self, hygiene: Hygiene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        del hygiene
        module = tmp_path / "sets_a_variable.py"
        module.write_text("import os\nos.environ['RAYSCHED_TEST_MODULE'] = '1'\n")
        monkeypatch.syspath_prepend(tmp_path)
        with Restored():
            import sets_a_variable  # type: ignore[import-not-found] # noqa: F401
        assert os.environ.pop("RAYSCHED_TEST_MODULE") == "1"
        del sys.modules["sets_a_variable"]

    def test_what_is_done_for_later_task_runs(self, hygiene: Hygiene) -> None:
        stop = threading.Event()
        with lasting():
            os.environ["RAYSCHED_TEST_LASTING"] = "1"
            thread = threading.Thread(target=stop.wait)
            thread.start()
        assert hygiene.after_item(LOOK_NS) == []
        assert os.environ.pop("RAYSCHED_TEST_LASTING") == "1"
        stop.set()
        thread.join()

    def test_outside_units_everything_lasts(self) -> None:
        with lasting():
            pass


class TestThreads:
    def test_one_that_stays_is_named_once(self, hygiene: Hygiene) -> None:
        stop = threading.Event()
        threads: list[threading.Thread] = []

        def leave_one() -> list[str]:
            thread = threading.Thread(target=stop.wait, name=f"poller-{len(threads)}", daemon=True)
            thread.start()
            threads.append(thread)
            return list(hygiene.after_item(QUICK_NS))

        (notice,) = leave_one()
        assert "'poller-0' (daemon)" in notice
        assert leave_one() == leave_one() == []
        stop.set()
        for thread in threads:
            thread.join()

    def test_one_that_has_ended_is_none(self, hygiene: Hygiene) -> None:
        _in_a_thread(lambda: None)
        assert not hygiene.after_item(QUICK_NS)

    def test_one_that_is_about_to_end_is_none(self, hygiene: Hygiene) -> None:
        told = threading.Event()
        thread = threading.Thread(target=told.wait)
        thread.start()
        told.set()
        assert not hygiene.after_item(QUICK_NS)

    def test_one_that_was_there_before_is_none(self) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        watch = Hygiene("before", dedicated=False)
        _in_a_thread(lambda: None)
        assert watch.after_item(LOOK_NS) == watch.end() == []
        stop.set()
        thread.join()


class TestMemory:
    @pytest.mark.parametrize("dedicated", [True, False])
    def test_growth_is_told_once(self, dedicated: bool) -> None:
        watch = Hygiene(f"grows {dedicated}", dedicated=dedicated)
        # Beyond the most that this process ever had, and beyond a tenth of it.
        left = _touched(3 * GROWTH_MIN_BYTES)
        while not (notices := watch.after_item(MEMORY_NS)):
            left += _touched(3 * GROWTH_MIN_BYTES)
        assert "has grown by" in notices[0]
        assert watch.after_item(MEMORY_NS) == []
        assert left
        del left
        assert watch.end() == []

    def test_result_on_its_way_is_no_growth(self) -> None:
        watch = Hygiene("returns", dedicated=True)
        result = _touched(3 * GROWTH_MIN_BYTES)
        assert watch.after_item(MEMORY_NS, len(result)) == watch.end() == []

    def test_memory_that_was_given_back_is_no_growth(self) -> None:
        watch = Hygiene("gives back", dedicated=True)
        _touched(3 * GROWTH_MIN_BYTES)
        assert watch.after_item(MEMORY_NS) == watch.end() == []

    def test_a_cycle_that_nobody_holds_is_no_growth(self) -> None:
        watch = Hygiene("cycle", dedicated=True)
        cycle: list[object] = [_touched(3 * GROWTH_MIN_BYTES)]
        cycle.append(cycle)
        del cycle
        assert watch.after_item(MEMORY_NS) == watch.end() == []


NAMES = st.sampled_from([f"RAYSCHED_TEST_{letter}" for letter in "ABC"])
CHANGES = st.lists(st.tuples(NAMES, st.none() | st.sampled_from(["", "1", "ü"])))


@given(before=CHANGES, items=st.lists(CHANGES, max_size=4))
def test_any_changes_are_put_back(
    before: list[tuple[str, str | None]], items: list[list[tuple[str, str | None]]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in "ABC":
            patch.delenv(f"RAYSCHED_TEST_{name}", raising=False)
        _change(before)
        expected = dict(os.environ)
        watch = Hygiene("any", dedicated=False)
        for changes in items:
            _change(changes)
            watch.after_item(QUICK_NS)
            assert dict(os.environ) == expected
        watch.end()
        _change([(f"RAYSCHED_TEST_{name}", None) for name in "ABC"])


class Restored:
    """A unit of one quick item: the block."""

    def __enter__(self) -> None:
        self._watch = Hygiene("block", dedicated=False)

    def __exit__(self, *_: object) -> None:
        self._watch.after_item(QUICK_NS)
        self._watch.end()


def _change(changes: list[tuple[str, str | None]]) -> None:
    for name, value in changes:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _touched(size: int) -> bytearray:
    return bytearray(b"x") * size


def _in_a_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def _of_child(variable: str) -> str:
    command = ["/bin/sh", "-c", f'printf %s "${variable}"']
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
