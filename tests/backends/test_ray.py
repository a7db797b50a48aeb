"""What only the Ray backend can do: live reports, workers that die, clusters that do not answer."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from backends import jobs
from backends.harness import wait_for
from raysched.errors import InvalidOption
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.values import CrashKind, ErrorInfo, FailureClass, TimeoutKind

if TYPE_CHECKING:
    from pathlib import Path

    from backends.harness import Ended, Harness

COMPLETED, CANCELLED, TIMED_OUT = StateType.COMPLETED, StateType.CANCELLED, StateType.TIMED_OUT


class TestDeath:
    @pytest.mark.parametrize(
        ("function", "args"),
        [
            (jobs.die, (signal.SIGKILL,)),
            (jobs.die, (signal.SIGSEGV,)),
            (jobs.exit_at_once, ()),
        ],
    )
    def test_of_a_worker(self, ray_harness: Harness, function: Any, args: tuple[Any, ...]) -> None:
        ended = ray_harness.run(function, args)
        assert ended.states == {}
        assert ended.lost is not None
        assert ended.lost.failure_class is FailureClass.INFRASTRUCTURE
        assert ended.lost.kind == CrashKind.WORKER_DIED

    def test_last_words_survive(self, ray_harness: Harness) -> None:
        ended = ray_harness.run(jobs.talk_and_die, (20,))
        assert ended.lost is not None
        assert ended.messages == [f"line {number}" for number in range(20)]

    def test_reported_items_survive(self, ray_harness: Harness, tmp_path: Path) -> None:
        go = tmp_path / "go"
        spec = TaskSpec("job", jobs.die_at)
        number = ray_harness.submit(spec, [(str(go), index) for index in range(4)])
        ended = ray_harness.peek(number)
        while len(ended.states) < 2:
            assert ray_harness.take(number), "it ended before"
        go.touch()
        ended = ray_harness.finish(number)
        assert ended.states == {0: COMPLETED, 1: COMPLETED}
        assert ended.lost is not None

    def test_by_force(self, ray_harness: Harness) -> None:
        number = ray_harness.submit(TaskSpec("job", jobs.never_react), [()])
        ray_harness.until_began(number)
        ray_harness.backend.cancel(number, force=True)
        ended = ray_harness.finish(number)
        assert ended.lost is not None
        assert ended.lost.failure_class is FailureClass.CANCELLED

    def test_of_one_that_does_not_react_to_its_timeout(self, ray_harness: Harness) -> None:
        ended = ray_harness.run(jobs.never_react, (), (), timeout_seconds=0.2)
        assert ended.states == {0: TIMED_OUT}
        assert "its worker was ended" in ended.errors[0].message
        assert "never_react" in ended.errors[0].traceback
        assert ended.lost is not None
        assert ended.lost.kind == CrashKind.WORKER_DIED


class TestEvidence:
    """What is known of a worker that has died."""

    def test_code_of_exit(self, ray_harness: Harness) -> None:
        error = lost(ray_harness.run(jobs.exit_at_once))
        assert error.evidence["exit_code"] == 3
        assert "os._exit(3)" in error.message

    def test_death_without_a_word(self, ray_harness: Harness) -> None:
        error = lost(ray_harness.run(jobs.die, (signal.SIGKILL,)))
        assert not {"exit_code", "signal"} & error.evidence.keys()
        assert "SIGKILL" in error.message

    def test_termination(self, ray_harness: Harness) -> None:
        error = lost(ray_harness.run(jobs.die_and_wait, (signal.SIGTERM,)))
        assert error.evidence["signal"] == "SIGTERM"

    def test_place(self, ray_harness: Harness, tmp_path: Path) -> None:
        """Also where the worker has died before it had told of anything."""
        before = ray_harness.run(jobs.where)
        ended = ray_harness.run(jobs.where_and_die, (str(tmp_path / "here"),))
        node, worker, pid = (tmp_path / "here").read_text().split()
        error = lost(ended)
        assert error.evidence["node_id"] == node == ray_harness.value(before)
        assert error.evidence["worker_id"] == worker
        assert error.evidence["pid"] == int(pid)
        assert error.evidence["host"]

    def test_fingerprint_tells_causes_apart(self, ray_harness: Harness) -> None:
        errors = [
            lost(ray_harness.run(jobs.die_and_wait, (number,)))
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL)
        ]
        first, again, other = [error.fingerprint for error in errors]
        assert first == again != other

    def test_fingerprint_tells_tasks_apart(self, ray_harness: Harness) -> None:
        first, other = [
            lost(ray_harness.run(jobs.die, (signal.SIGKILL,), name=name)).fingerprint
            for name in ("parse", "clean")
        ]
        assert first != other


class TestHeartbeat:
    LIMIT = 1.5
    """Workers give way to all else on a busy machine."""

    @pytest.mark.parametrize("function", [jobs.stop, jobs.hold_gil])
    def test_silent_worker_is_ended(self, ray_harness: Harness, function: Any) -> None:
        ended = ray_harness.run(function, heartbeat_timeout_seconds=self.LIMIT)
        error = lost(ended)
        assert error.failure_class is FailureClass.TIMEOUT
        assert error.kind == TimeoutKind.HEARTBEAT
        assert "job[0] " in error.message
        assert f"heartbeat_timeout_seconds={self.LIMIT}, so its worker was ended" in error.message
        pid = error.evidence["pid"]
        wait_for(lambda: not psutil.pid_exists(pid))
        # Who is stopped cannot tell.
        if function is jobs.hold_gil:
            assert error.evidence["frames"][-1]["function"] == "hold_gil"
            assert "hold_gil" in error.traceback

    @pytest.mark.parametrize(
        ("function", "options"),
        [(jobs.sleep, {}), (jobs.spin, {}), (jobs.doze, {"is_async": True})],
    )
    def test_worker_that_works_is_not_silent(
        self, ray_harness: Harness, function: Any, options: dict[str, Any]
    ) -> None:
        seconds = 1.5 * self.LIMIT
        ended = ray_harness.run(
            function, (seconds,), (seconds,), heartbeat_timeout_seconds=self.LIMIT, **options
        )
        assert ended.states == {0: COMPLETED, 1: COMPLETED}

    def test_own_pause_is_no_silence_of_workers(self, ray_harness: Harness) -> None:
        spec = TaskSpec("job", jobs.sleep, heartbeat_timeout_seconds=self.LIMIT)
        number = ray_harness.submit(spec, [(3 * self.LIMIT,)])
        ray_harness.until_began(number)
        hold_gil_for(2 * self.LIMIT)
        assert ray_harness.finish(number).states == {0: COMPLETED}

    def test_what_ended_before_is_kept(self, ray_harness: Harness) -> None:
        spec = TaskSpec("job", jobs.sleep_or_stop, heartbeat_timeout_seconds=self.LIMIT)
        ended = ray_harness.finish(ray_harness.submit(spec, [(0.2,), (None,), (0,)]))
        assert ended.states == {0: COMPLETED}
        assert lost(ended).kind == TimeoutKind.HEARTBEAT


def lost(ended: Ended) -> ErrorInfo:
    assert ended.lost is not None, ended
    return ended.lost


def hold_gil_for(seconds: float) -> None:
    """Give no other thread of this process a turn for a time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(2 * seconds)
    try:
        jobs.spin(seconds)
    finally:
        sys.setswitchinterval(interval)


class TestTimeouts:
    def test_of_one_that_holds_the_gil(self, hasty_harness: Harness) -> None:
        ended = hasty_harness.run(jobs.hold_gil, timeout_seconds=0.2)
        error = lost(ended)
        assert error.failure_class is FailureClass.TIMEOUT
        assert error.kind == TimeoutKind.ATTEMPT
        assert "timeout_seconds=0.2" in error.message
        assert "hold_gil" in error.evidence["fatal_error"]

    def test_item_that_holds_the_gil_has_the_time_that_it_was_given(
        self, hasty_harness: Harness
    ) -> None:
        """Nothing but the item itself can say there that it has begun."""
        spec = TaskSpec("job", jobs.hold_gil_for_or_sleep, timeout_seconds=4)
        # The second one ends in its own time, but not in that of the first.
        number = hasty_harness.submit(spec, [(3.5, False), (3.5, True)])
        ended = hasty_harness.finish(number)
        assert ended.states == {0: COMPLETED, 1: COMPLETED}

    def test_worker_lives_on_after_one_that_was_in_time(self, hasty_harness: Harness) -> None:
        ended = hasty_harness.run(jobs.sleep, (0.2,), timeout_seconds=0.5)
        # Longer than the limit of the first, with the grace.
        after = hasty_harness.run(jobs.sleep, (3,))
        assert after.states == {0: COMPLETED}
        assert after.process == ended.process


class TestLive:
    def test_log_records_come_while_it_runs(self, ray_harness: Harness, tmp_path: Path) -> None:
        go = tmp_path / "go"
        spec = TaskSpec("job", jobs.talk_and_wait)
        number = ray_harness.submit(spec, [(str(go),)])
        ended = ray_harness.peek(number)
        while not (ended.logs and ended.began):
            assert ray_harness.take(number), "it ended before"
        assert ended.messages == ["waiting"]
        go.touch()
        assert ray_harness.finish(number).messages == ["waiting"]

    def test_flood_of_log_records_comes_once_and_in_order(self, ray_harness: Harness) -> None:
        ended = ray_harness.run(jobs.flood, (3000,))
        assert ended.messages == [f"line {number}" for number in range(3000)]
        assert ended.live > 0

    def test_quick_unit_is_not_announced(self, ray_harness: Harness) -> None:
        assert ray_harness.run(jobs.add, (1,)).live == 0

    def test_threads_of_user_code_belong_to_the_item(self, ray_harness: Harness) -> None:
        assert ray_harness.run(jobs.talk_in_thread).messages == ["from a thread"]


class TestCancel:
    @pytest.mark.parametrize(
        ("function", "options"),
        [(jobs.sleep, {}), (jobs.doze, {"is_async": True}), (jobs.spin, {"max_concurrency": 2})],
    )
    def test_running_items(
        self, ray_harness: Harness, function: Any, options: dict[str, Any]
    ) -> None:
        number = ray_harness.submit(TaskSpec("job", function, **options), [(60,), (60,)])
        ray_harness.until_began(number)
        ray_harness.backend.cancel(number)
        ended = ray_harness.finish(number)
        assert ended.lost is None
        assert ended.states == {0: CANCELLED, 1: CANCELLED}
        assert ended.errors[0].failure_class is FailureClass.CANCELLED

    @pytest.mark.parametrize(
        ("function", "options"),
        [(jobs.sleep, {}), (jobs.doze, {"is_async": True}), (jobs.spin, {"max_concurrency": 2})],
    )
    def test_single_item_that_runs(
        self, ray_harness: Harness, function: Any, options: dict[str, Any]
    ) -> None:
        number = ray_harness.submit(TaskSpec("job", function, **options), [(60,), (0.5,)])
        ray_harness.until_began(number)
        ray_harness.backend.cancel(number, [0])
        ended = ray_harness.finish(number)
        assert ended.lost is None
        assert ended.states == {0: CANCELLED, 1: COMPLETED}

    def test_item_that_has_not_begun_ends_at_once(
        self, ray_harness: Harness, tmp_path: Path
    ) -> None:
        go = tmp_path / "go"
        spec = TaskSpec("job", jobs.wait_for_file)
        number = ray_harness.submit(spec, [(str(go),)] * 3)
        ray_harness.until_began(number)
        ray_harness.backend.cancel(number, [1])
        ended = ray_harness.peek(number)
        while not ended.states:
            assert ray_harness.take(number), "it ended before"
        assert ended.states == {1: CANCELLED}
        go.touch()
        assert ray_harness.finish(number).states == {0: COMPLETED, 1: CANCELLED, 2: COMPLETED}

    def test_worker_that_does_not_even_hear_it_is_ended(
        self, ray_harness: Harness, tmp_path: Path
    ) -> None:
        marks = tmp_path / "gil", tmp_path / "stopped"
        first = ray_harness.submit(TaskSpec("job", jobs.hold_gil), [(str(marks[0]),)])
        second = ray_harness.submit(TaskSpec("job", jobs.stop), [(str(marks[1]),), ("",)])
        wait_for(lambda: all(mark.exists() for mark in marks))
        pid, computed = marks[0].read_text().split()
        wait_for(lambda: psutil.Process(int(pid)).cpu_times().user > float(computed) + 0.3)
        pid, _ = marks[1].read_text().split()
        wait_for(lambda: psutil.Process(int(pid)).status() == psutil.STATUS_STOPPED)
        ray_harness.backend.cancel(first)
        ray_harness.backend.cancel(second, [0])
        error = lost(ray_harness.finish(first))
        assert error.failure_class is FailureClass.CANCELLED
        assert "hold_gil" in error.traceback
        assert lost(ray_harness.finish(second)).kind == CrashKind.WORKER_DIED

    def test_item_that_does_not_react_loses_its_worker(self, hasty_harness: Harness) -> None:
        spec = TaskSpec("job", jobs.sleep_or_never_react)
        number = hasty_harness.submit(spec, [(0,), (None,), (0,)])
        hasty_harness.until_began(number)
        hasty_harness.backend.cancel(number, [1])
        ended = hasty_harness.finish(number)
        assert ended.states == {0: COMPLETED, 1: CANCELLED}
        told = ended.errors[1].message
        assert "0.5 s later, so its worker was ended, while it was in never_react, jobs.py:" in told
        assert [(log.position, log.message) for log in ended.logs] == [(1, told)]
        assert ended.lost is not None
        assert ended.lost.kind == CrashKind.WORKER_DIED

    def test_worker_goes_on_after_it(self, ray_harness: Harness) -> None:
        number = ray_harness.submit(TaskSpec("job", jobs.sleep), [(60,)])
        ray_harness.until_began(number)
        ray_harness.backend.cancel(number)
        ended = ray_harness.finish(number)
        os.kill(ended.process, 0)
        assert ray_harness.values(ray_harness.run(jobs.add, (1,))) == [2]


class TestCapacity:
    @pytest.mark.parametrize(
        ("options", "slots"),
        [
            ({}, 4),
            ({"num_cpus": 2}, 2),
            ({"num_cpus": 0.5}, 8),
            ({"num_cpus": 0}, 16),
            ({"num_cpus": 3}, 1),
        ],
    )
    def test_slots(self, ray_harness: Harness, options: dict[str, Any], slots: int) -> None:
        found = ray_harness.backend.capacity(TaskSpec("job", jobs.add, ray=options), ())
        assert found.slots == slots

    @pytest.mark.parametrize(
        ("options", "lacking"),
        [
            ({"num_gpus": 1}, "num_gpus=1; the cluster has 0"),
            ({"num_cpus": 64}, "num_cpus=64; the largest node has 4"),
            ({"resources": {"tape": 1}}, "tape=1; the cluster has 0"),
            ({"memory": 4 * 1024**4}, "memory=4 TiB; the largest node has"),
            ({"label_selector": {"zone": "moon"}}, "no node has such labels"),
        ],
    )
    def test_nothing_fits(
        self, ray_harness: Harness, options: dict[str, Any], lacking: str
    ) -> None:
        found = ray_harness.backend.capacity(TaskSpec("job", jobs.add, ray=options), ())
        assert found.slots == 0
        assert lacking in found.lacking

    def test_misspelt_option_is_refused_with_the_closest(self) -> None:
        from raysched.backends.ray.options import validate_ray_options

        with pytest.raises(InvalidOption, match="did you mean 'num_gpus'"):
            validate_ray_options({"num_gpu": 1})

    def test_impossible_value_is_refused(self) -> None:
        from raysched.backends.ray.options import validate_ray_options

        with pytest.raises(InvalidOption, match="num_cpus=-1"):
            validate_ray_options({"num_cpus": -1})

    def test_resources_are_given(self, ray_harness: Harness) -> None:
        ended = ray_harness.run(jobs.assigned_cpus, ray={"num_cpus": 2})
        assert ray_harness.values(ended) == [2]
