"""What every backend promises (`engine.ports.Backend`), over all of them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from backends import jobs
from backends.harness import HEADER, spread
from raysched.errors import SerializationError, TaskRunTimedOut
from raysched.graph.payload import dump_call, reduce_dependency
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.values import FailureClass, LargeValue
from raysched.results.envelope import decode, encode
from raysched.worker.protocol import FAILURE, INLINE, LARGE, LIST, Stage, Unit

if TYPE_CHECKING:
    from backends.harness import Harness

COMPLETED, FAILED = StateType.COMPLETED, StateType.FAILED
TIMED_OUT, CANCELLED = StateType.TIMED_OUT, StateType.CANCELLED


class Future:
    """Pickles as the next slot, like the futures of the face."""

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_dependency(self)

    def identity(self) -> bytes:
        return b""

    def edge(self) -> Any:
        return None


def map_unit(shared: bytes, *rows: bytes) -> Unit:
    size = len(rows)
    return Unit(0, HEADER, (Stage("job", True, shared, (), range(size), [1] * size, rows),))  # noqa: FBT003 - as it travels


class TestValues:
    def test_items_get_their_arguments(self, harness: Harness) -> None:
        ended = harness.run(jobs.add, (1,), (2, 3))
        assert harness.values(ended) == [2, 5]
        assert set(ended.states.values()) == {COMPLETED}

    def test_times_are_in_order(self, harness: Harness) -> None:
        ended = harness.run(jobs.add, (1,), (2,))
        first, second = ended.spans[0], ended.spans[1]
        assert first[0] <= first[1] <= second[0] <= second[1]

    def test_rows_of_a_map_share_static_arguments_but_no_objects(self, harness: Harness) -> None:
        shared, _ = dump_call((("items",), {}))
        row, _ = dump_call(([0],))
        unit = map_unit(shared, row, row)
        ended = harness.finish(harness.submit_unit(TaskSpec("job", jobs.append), unit))
        assert harness.values(ended) == [[0, 1], [0, 1]]

    def test_broadcast_is_decoded_for_each_item(self, harness: Harness) -> None:
        slots = ((INLINE, encode([0]).join()),)
        number = harness.submit(TaskSpec("job", jobs.append), [(Future(),), (Future(),)], slots)
        assert harness.values(harness.finish(number)) == [[0, 1], [0, 1]]

    def test_names_outside_the_signature_go_to_its_keywords(self, harness: Harness) -> None:
        shared, _ = dump_call((("other",), {"args": (1, 2)}))
        unit = map_unit(shared, dump_call((3,))[0])
        ended = harness.finish(harness.submit_unit(TaskSpec("job", jobs.describe), unit))
        assert harness.value(ended) == ((1, 2), {"other": 3})

    def test_slots_hold_lists_and_failures(self, harness: Harness) -> None:
        failure = (FAILURE, encode(ValueError("why")).join())
        slots = ((LIST, [(INLINE, encode(1).join()), failure]),)
        number = harness.submit(TaskSpec("job", jobs.describe), [(Future(),)], slots)
        (((one, error),), _) = harness.value(harness.finish(number))
        assert one == 1
        assert repr(error) == "ValueError('why')"

    def test_large_values_go_on_without_the_driver(self, harness: Harness) -> None:
        made = harness.run(jobs.zeros, (100_000,), (3,))
        large, small = made.values[0], made.values[1]
        assert isinstance(large, LargeValue)
        assert isinstance(small, bytes)
        slots = ((LARGE, (0, large.position)),)
        spec = TaskSpec("use", jobs.increase)
        number = harness.submit(spec, [(Future(),), (Future(),)], slots, (large.handle,))
        sums = [value[0] for value in harness.values(harness.finish(number))]
        assert sums == [100_000.0, 100_000.0]

    def test_fetched_values_are_fresh_and_writable(self, harness: Harness) -> None:
        ended = harness.run(jobs.zeros, (100_000,))
        first = harness.value(ended)
        first += 1
        assert np.count_nonzero(harness.value(ended)) == 0

    def test_names_are_rendered(self, harness: Harness) -> None:
        ended = harness.run(jobs.add, (1,), (2, 5), task_run_name="add {a} and {b}")
        assert ended.names == {0: "add 1 and 1", 1: "add 2 and 5"}

    def test_name_that_cannot_be_rendered_harms_nothing(self, harness: Harness) -> None:
        ended = harness.run(jobs.add, (1,), task_run_name="add {missing}")
        assert harness.values(ended) == [2]
        assert "cannot be rendered" in ended.messages[0]

    def test_attempt_knows_itself(self, harness: Harness) -> None:
        ended = harness.run(jobs.who_am_i, tags=("red",))
        assert harness.value(ended) == ("nightly", "job[0]", 0, 1, ("red",), {})


class TestFunctions:
    def test_lambda_and_closure(self, harness: Harness) -> None:
        offset = 10
        assert harness.values(harness.run(lambda value: value + offset, (1,))) == [11]

    def test_bound_and_static_methods(self, harness: Harness) -> None:
        assert harness.values(harness.run(jobs.Parser(5).parse, (1,))) == [6]
        assert harness.values(harness.run(jobs.Parser.double, (4,))) == [8]

    def test_returned_state_is_the_outcome(self, harness: Harness) -> None:
        assert harness.values(harness.run(jobs.complete, (7,))) == [7]
        ended = harness.run(jobs.give_up)
        assert ended.states == {0: FAILED}
        assert ended.error.message == "no rows today"


class TestFailures:
    def test_exception_comes_back_with_its_story(self, harness: Harness) -> None:
        ended = harness.run(jobs.fail_for_a_reason)
        error = ended.error
        assert ended.states == {0: FAILED}
        assert (error.type, error.message) == ("builtins.RuntimeError", "the table is broken")
        assert error.failure_class is FailureClass.USER
        assert error.exception is not None
        assert isinstance(decode(error.exception), RuntimeError)
        assert "ValueError: no such row" in error.traceback
        assert "jobs.py" in error.traceback
        assert "raysched/worker" not in error.traceback

    def test_failure_ends_only_its_item(self, harness: Harness) -> None:
        ended = harness.run(jobs.fail, ("one",), ("two",))
        assert ended.states == {0: FAILED, 1: FAILED}
        assert [ended.errors[i].message for i in (0, 1)] == ["one", "two"]

    @pytest.mark.parametrize(
        ("function", "name", "message"),
        [
            (jobs.raise_odd, "OddError", "row 1, column 2"),
            (jobs.raise_locked, "LockedError", "locked"),
        ],
    )
    def test_exception_that_cannot_travel_leaves_its_text(
        self, harness: Harness, function: Any, name: str, message: str
    ) -> None:
        error = harness.run(function).error
        assert (error.type.rpartition(".")[2], error.message) == (name, message)
        assert f"{name}: {message}" in error.traceback
        assert error.exception is None

    @pytest.mark.parametrize(
        ("function", "name"),
        [(jobs.leave, "SystemExit"), (jobs.interrupt_itself, "KeyboardInterrupt")],
    )
    def test_exits_of_user_code_are_failures(
        self, harness: Harness, function: Any, name: str
    ) -> None:
        ended = harness.run(function)
        assert ended.states == {0: FAILED}
        assert ended.error.type == f"builtins.{name}"

    @pytest.mark.parametrize("function", [jobs.make_lock, jobs.generate])
    def test_result_that_cannot_be_pickled(self, harness: Harness, function: Any) -> None:
        ended = harness.run(function, name="make")
        assert ended.states == {0: FAILED}
        assert ended.error.type == "raysched.errors.SerializationError"
        assert "'make'" in ended.error.message

    def test_argument_that_cannot_be_rebuilt(self, harness: Harness) -> None:
        try:
            jobs.raise_odd()
        except jobs.OddError as error:
            ended = harness.run(jobs.describe, (error,))
        assert ended.states == {0: FAILED}
        assert "argument of job[0] cannot be unpickled" in ended.error.message


class TestTimeouts:
    @pytest.mark.parametrize("function", [jobs.sleep_and_swallow, jobs.sleep_and_swallow_all])
    def test_cannot_be_swallowed(self, harness: Harness, function: Any) -> None:
        ended = harness.run(function, (60,), (0,), timeout_seconds=0.2)
        assert ended.states == {0: TIMED_OUT, 1: COMPLETED}
        assert ended.error.failure_class is FailureClass.TIMEOUT
        assert "timeout_seconds=0.2" in ended.error.message
        assert ended.error.exception is not None
        assert isinstance(decode(ended.error.exception), TaskRunTimedOut)

    def test_tells_where_the_time_went(self, harness: Harness) -> None:
        ended = harness.run(jobs.sleep, (60,), timeout_seconds=0.2)
        assert "time.sleep(seconds)" in ended.error.traceback

    def test_of_async_functions(self, harness: Harness) -> None:
        ended = harness.run(jobs.doze, (60,), (0,), is_async=True, timeout_seconds=0.2)
        assert ended.states == {0: TIMED_OUT, 1: COMPLETED}

    def test_of_threads(self, harness: Harness) -> None:
        ended = harness.run(jobs.sleep, (0.5,), (0,), max_concurrency=2, timeout_seconds=0.2)
        assert ended.states == {0: TIMED_OUT, 1: COMPLETED}

    def test_leaves_no_trace(self, harness: Harness) -> None:
        before = signal.getsignal(signal.SIGALRM)
        harness.run(jobs.sleep, (60,), timeout_seconds=0.1)
        assert harness.values(harness.run(jobs.sleep, (0.3,))) == [0.3]
        assert signal.getsignal(signal.SIGALRM) == before

    def test_alarm_of_user_code_does_not_reach_the_next_item(self, harness: Harness) -> None:
        spec = TaskSpec("job", jobs.set_alarm_and_forget)
        first = harness.submit(spec, [()])
        second = harness.submit(TaskSpec("job", jobs.sleep), [(0.2,)])
        assert harness.finish(first).states == {0: COMPLETED}
        assert harness.finish(second).states == {0: COMPLETED}


class TestOverlap:
    def test_async_functions_wait_together(self, harness: Harness) -> None:
        ended = harness.run(jobs.meet, *[("async", 50)] * 50, is_async=True)
        assert harness.values(ended) == [50] * 50

    def test_threads_of_max_concurrency(self, harness: Harness) -> None:
        ended = harness.run(jobs.meet_in_threads, *[("threads", 4)] * 4, max_concurrency=4)
        assert sorted(harness.values(ended)) == [0, 1, 2, 3]

    def test_otherwise_one_after_the_other(self, harness: Harness) -> None:
        ended = harness.run(jobs.sleep, *[(0.02,)] * 5)
        assert spread(ended) >= 5 * 0.02


class TestLogs:
    def test_records_and_prints_belong_to_their_item(self, harness: Harness) -> None:
        ended = harness.run(jobs.talk, ("one",), ("two",), log_prints=True)
        assert [(record.position, record.message) for record in ended.logs] == [
            (0, "info one"),
            (0, "printed one"),
            (1, "info two"),
            (1, "printed two"),
        ]
        assert ended.logs[0].logger == "users.own"

    def test_without_log_prints(self, harness: Harness) -> None:
        assert harness.run(jobs.talk, ("one",)).messages == ["info one"]


class TestCancel:
    def test_queued_unit(self, harness: Harness) -> None:
        spec = TaskSpec("job", jobs.sleep, ray={"num_cpus": 4})
        first, second = harness.submit(spec, [(0.3,)]), harness.submit(spec, [(0,)])
        harness.backend.cancel(second)
        ended = harness.finish(second)
        assert ended.lost is not None
        assert ended.lost.failure_class is FailureClass.CANCELLED
        assert harness.finish(first).states == {0: COMPLETED}

    @pytest.mark.parametrize(
        "options", [{}, {"is_async": True}, {"max_concurrency": 2}], ids=["turn", "async", "thread"]
    )
    def test_single_items_of_a_queued_unit(self, harness: Harness, options: dict[str, Any]) -> None:
        function = jobs.doze if options.get("is_async") else jobs.sleep
        resources = {"num_cpus": 4}
        first = harness.submit(TaskSpec("job", jobs.sleep, ray=resources), [(0.3,)])
        spec = TaskSpec("job", function, ray=resources, **options)
        second = harness.submit(spec, [(0,), (60,), (60,), (0,)])
        harness.backend.cancel(second, [1])
        harness.backend.cancel(second, [2])
        harness.finish(first)
        ended = harness.finish(second)
        assert ended.lost is None
        assert ended.states == {0: COMPLETED, 1: CANCELLED, 2: CANCELLED, 3: COMPLETED}
        assert ended.errors[1].failure_class is FailureClass.CANCELLED

    def test_unknown_unit_is_ignored(self, harness: Harness) -> None:
        harness.backend.cancel(10**9, force=True)
        assert harness.values(harness.run(jobs.add, (1,))) == [2]


def test_large_values_that_are_there_are_not_lost(harness: Harness) -> None:
    ended = harness.run(jobs.zeros, (100_000,), (200_000,))
    large = [value for value in ended.values.values() if isinstance(value, LargeValue)]
    assert harness.backend.are_lost(large) == [False, False]
    assert harness.backend.are_lost([]) == []


def test_describes_itself(harness: Harness) -> None:
    assert harness.backend.name in harness.backend.describe().lower()


def test_stop_is_idempotent(inline_harness: Harness) -> None:
    inline_harness.backend.stop()
    inline_harness.backend.stop()


def test_arguments_that_cannot_be_pickled_are_refused_at_the_call() -> None:
    with pytest.raises(SerializationError, match="lock"):
        dump_call(((jobs.make_lock(),), {}))
