"""What becomes of an item that does not return a value, and what is kept of it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from raysched import skip, when
from raysched.define.successes import Successes
from raysched.errors import TaskRunSkipped
from raysched.graph.payload import Slot
from raysched.model.options import RetryOptions, TaskSpec
from raysched.model.states import StateType
from raysched.model.values import FailureClass, TimeoutKind
from raysched.results.envelope import encode
from raysched.results.rebuild import exception_of
from raysched.worker.failures import add_stack, describe_timeout
from raysched.worker.masking import MASK
from raysched.worker.protocol import (
    FAILURE,
    INLINE,
    LIST,
    SUCCESSES,
    SlotValue,
    Stage,
    Unit,
    decode_report,
    encode_unit,
)
from raysched.worker.runner import UnitRun
from worker.unit_runs import HEADER, HERE, Call, ended, new_context, new_run, outcome, outcomes

if TYPE_CHECKING:
    from collections.abc import Callable


def fail(*args: Any, **kwargs: Any) -> None:
    raise KeyError("usage_facts")


def inline(value: object) -> SlotValue:
    return INLINE, encode(value).join()


def failure(error: BaseException) -> bytes:
    return encode(error).join()


# ---- evidence


def test_what_is_kept_of_a_failure() -> None:
    error = outcome(fail, 1).error
    assert error.type == "builtins.KeyError"
    assert error.failure_class is FailureClass.USER
    assert len(error.fingerprint) == 16
    evidence = error.evidence
    assert evidence["frames"][-1]["function"] == "fail"
    assert evidence["frames"][-1]["code"] == 'raise KeyError("usage_facts")'
    where = {name: evidence[name] for name in ("node_id", "worker_id", "pid", "host")}
    assert where == dict(zip(("node_id", "worker_id", "pid", "host"), HERE.identity, strict=True))
    json.dumps(evidence)


def test_arguments_are_told_by_parameter() -> None:
    def work(path: str, limit: int = 3, *rest: int, password: str, **more: Any) -> None:
        raise ValueError

    error = outcome(work, "/a", 5, 6, 7, password="hunter2", api_key="abc", note="x").error  # noqa: S106 - nobody's
    inputs = {each["name"]: (each["type"], each["preview"]) for each in error.evidence["inputs"]}
    assert inputs == {
        "path": ("str", "'/a'"),
        "limit": ("int", "5"),
        "rest": ("tuple", "(6, 7)"),
        "password": ("str", MASK),
        "more": ("dict", f"{{'api_key': {MASK}, 'note': 'x'}}"),
    }


def test_settings_name_more_secrets() -> None:
    def work(ssn: str) -> None:
        raise ValueError

    assert outcome(work, "1").error.evidence["inputs"][0]["preview"] == "'1'"
    assert outcome(work, "1", mask="iban, ssn").error.evidence["inputs"][0]["preview"] == MASK


def test_arguments_that_do_not_fit_are_no_second_failure() -> None:
    def work(one: int) -> int:
        return one

    error = outcome(work, 1, 2).error
    assert error.type == "builtins.TypeError"
    assert "inputs" not in error.evidence


def test_arguments_name_the_slots_in_them() -> None:
    def work(*args: Any, **kwargs: Any) -> None:
        raise ValueError

    slots = tuple(map(inline, range(4)))
    call = ([Slot(0, b""), {"a": Slot(2, b"")}], 5), {"b": {"c": (Slot(1, b""), Slot(3, b""))}}
    (found,) = outcomes(new_run(new_context(TaskSpec("work", work)), [call], [slots]))
    inputs = {each["name"]: each for each in found.error.evidence["inputs"]}
    assert list(inputs["args"]["slots"]) == [0, 2]
    assert list(inputs["kwargs"]["slots"]) == [1, 3]
    assert inputs["args"]["preview"] == "([0, {'a': 2}], 5)"


def test_slots_are_found_without_calling_code_of_the_arguments() -> None:
    def work(first: Any, second: Any) -> None:
        raise ValueError

    Counting.made = 0
    call: Call = (Counting(Slot(0, b"")), 1), {}
    (found,) = outcomes(new_run(new_context(TaskSpec("work", work)), [call], [(inline(7),)]))
    first, second = found.error.evidence["inputs"]
    assert (list(first["slots"]), "slots" in second) == ([0], False)
    assert Counting.made == 2  # here, and when its arguments were decoded


class Counting:
    made = 0

    def __init__(self, inside: Any) -> None:
        type(self).made += 1
        self.inside = inside

    def __reduce__(self) -> Any:
        return Counting, (self.inside,)


def mapped_run(
    function: Callable[..., Any], columns: tuple[Any, ...], payloads: list[bytes]
) -> UnitRun:
    """Return a unit of a map over `x`, with `y` from slot 0 for all."""
    from raysched.graph.payload import dump_call

    shared = dump_call((("x",), {"y": Slot(0, b"")}))[0]
    slots = [(inline("broadcast"), inline(n)) for n in range(2)]
    stage = Stage("work", True, shared, (), range(2), [1, 1], payloads, columns, slots)  # noqa: FBT003 - a tuple
    context = new_context(TaskSpec("work", function))
    return UnitRun([context], encode_unit(Unit(1, HEADER, (stage,))), [], HERE)


@pytest.mark.parametrize("how", ["columns", "payloads"])
def test_arguments_of_a_map_name_their_slots(how: str) -> None:
    from raysched.graph.payload import dump_call

    def work(x: Any, y: Any) -> None:
        raise ValueError

    if how == "columns":
        run = mapped_run(work, ([5, 6],), [])
    else:
        run = mapped_run(work, (), [dump_call((Slot(1, b""),))[0]] * 2)
    second = ended(decode_report(run.run()[0]))[1]
    x, y = second.error.evidence["inputs"]
    assert (x["name"], x["preview"]) == ("x", "6" if how == "columns" else "1")
    assert list(x.get("slots", [])) == ([] if how == "columns" else [1])
    assert (list(y["slots"]), y["preview"]) == ([0], "'broadcast'")


def test_an_installed_project_is_its_users_own() -> None:
    def inside(text: str) -> Any:
        return json.loads(text)

    own = [frame["own"] for frame in outcome(inside, "{").error.evidence["frames"]]
    assert own == [True, False, False, False]
    error = outcome(json.loads, "{").error
    assert [frame["own"] for frame in error.evidence["frames"]] == [True, True, True]
    assert "…" not in error.traceback


class Careful:
    def __repr__(self) -> str:
        raise AssertionError


@pytest.mark.parametrize(
    ("retry_on", "retry"), [((OSError,), True), ((KeyError,), False), (fail, None), (None, None)]
)
def test_evidence_of_an_item_that_is_ended_by_force(retry_on: Any, retry: bool | None) -> None:
    found: list[Any] = []

    def work(x: int, y: Careful) -> None:
        found.extend((run.evidence(0, timed_out=True), run.evidence(1, timed_out=False)))

    spec = TaskSpec("work", work, retry=RetryOptions(1, retry_on=retry_on))
    run = new_run(new_context(spec), [((7, Careful()), {})] * 2)
    assert outcomes(run)[0].state is StateType.COMPLETED
    first, other = found[:2]
    careful = f"<{__name__}.Careful object>"
    assert [each["preview"] for each in first["inputs"]] == ["7", careful]
    assert first.get("retry", {}).get("retry") is retry
    assert other == {}


def test_where_a_thread_is() -> None:
    def wait_for_the_end() -> None:
        there.set()
        end.wait()

    there, end = threading.Event(), threading.Event()
    thread = threading.Thread(target=wait_for_the_end)
    thread.start()
    there.wait()
    late = describe_timeout("work[0]", TimeoutKind.ATTEMPT, 1.0)
    found = add_stack(late, thread)
    end.set()
    thread.join()
    frames = found.evidence["frames"]
    own = [frame["function"].rpartition(".")[2] for frame in frames if frame["own"]]
    assert own == ["wait_for_the_end"]
    assert "in wait_for_the_end" in found.traceback
    assert ", while it was in test_where_a_thread_is" in found.message
    assert found.fingerprint == late.fingerprint
    assert add_stack(late, thread) == late  # it has ended


# ---- timeouts


def spin() -> None:
    while True:
        pass


async def sleep() -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize(("function", "is_async"), [(spin, False), (sleep, True)])
def test_a_timeout_tells_its_kind(function: Callable[..., Any], is_async: bool) -> None:
    options = {"timeout_seconds": 0.05, "is_async": is_async}
    found = outcome(function, options=options)
    assert found.state is StateType.TIMED_OUT
    assert (found.error.kind, found.error.failure_class) == (
        TimeoutKind.ATTEMPT,
        FailureClass.TIMEOUT,
    )
    own = [frame["function"] for frame in found.error.evidence["frames"] if frame["own"]]
    assert own[-1] == function.__name__


# ---- retry_on


def retried(error: BaseException, retry_on: Any) -> Any:
    def work() -> None:
        raise error

    options = {"retry": RetryOptions(3, retry_on=retry_on)}
    return outcome(work, options=options).error.evidence.get("retry")


def test_without_retry_on_there_is_no_verdict() -> None:
    assert retried(OSError(), None) is None


def test_retry_on_is_asked_about_timeouts() -> None:
    def verdict(retry_on: Any) -> Any:
        options = {"timeout_seconds": 0.05, "retry": RetryOptions(1, retry_on=retry_on)}
        return outcome(spin, options=options).error.evidence["retry"]["retry"]

    assert verdict((TimeoutError,)) is True
    assert verdict((ConnectionError,)) is False


def test_retry_on_sees_the_exception_itself() -> None:
    seen = []

    def judge(error: BaseException) -> bool:
        seen.append(error)
        return True

    error = OSError(1)
    assert retried(error, judge)["retry"] is True
    assert seen == [error]


# ---- check


CHECKS = {
    "none": lambda _: None,
    "true": lambda _: True,
    "zero": lambda _: 0,
    "the result": lambda rows: rows,
    "a type": list[int],
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_check_that_is_met(check: Any) -> None:
    found = outcome(lambda: [1], options={"check": check})
    assert (found.state, found.value) == (StateType.COMPLETED, [1])


def test_a_check_that_is_not_met() -> None:
    error = outcome(list, options={"check": lambda rows: len(rows) > 0}).error
    assert error.type == "raysched.errors.CheckFailed"
    assert error.failure_class is FailureClass.USER
    assert error.message.startswith("the result of work[0] is refused by check=")
    assert error.message.endswith("which returned False for []")


def test_a_check_of_an_async_task_and_of_a_state() -> None:
    from raysched import Completed

    async def work() -> Any:
        return Completed(data=[])

    found = outcome(work, options={"check": lambda rows: len(rows) > 0, "is_async": True})
    assert found.error.type == "raysched.errors.CheckFailed"


def test_a_check_counts_for_the_timeout() -> None:
    options = {"check": lambda _: spin(), "timeout_seconds": 0.05}
    assert outcome(int, options=options).state is StateType.TIMED_OUT


# ---- skip


def test_a_task_skips_itself() -> None:
    found = outcome(lambda: skip("no rows"))
    assert found.state is StateType.SKIPPED
    assert found.error.message == "no rows"
    rebuilt = exception_of("work[0]", found.state, found.error)
    assert isinstance(rebuilt, TaskRunSkipped)
    assert str(rebuilt) == "no rows"


def test_that_something_else_was_skipped_is_a_failure() -> None:
    def work() -> None:
        raise TaskRunSkipped("no rows", key="other[1]")

    assert outcome(work).state is StateType.FAILED


@pytest.mark.parametrize(("value", "state"), [(0, StateType.SKIPPED), (1, StateType.COMPLETED)])
def test_a_predicate_of_an_argument(value: int, state: StateType) -> None:
    call: Call = ((when(Slot(0, b""), lambda number: number > 0),), {})
    run = new_run(new_context(TaskSpec("work", str)), [call], [(inline(value),)])
    assert outcomes(run)[0].state is state


# ---- values


def test_successes_have_their_failures_beside_them() -> None:
    def work(values: Any) -> Any:
        return type(values), list(values), list(map(repr, values.failures))

    slot = (SUCCESSES, ([inline(1), (LIST, [inline(2)])], [failure(ValueError("x"))]))
    call: Call = ((Slot(0, b""),), {})
    (found,) = outcomes(new_run(new_context(TaskSpec("work", work)), [call], [(slot,)]))
    assert found.value == (Successes, [1, [2]], ["ValueError('x')"])


def test_failures_take_the_place_of_values() -> None:
    call: Call = ((Slot(0, b""),), {})
    slots = [((FAILURE, failure(OSError("gone"))),)]
    (found,) = outcomes(new_run(new_context(TaskSpec("work", repr)), [call], slots))
    assert found.value == "OSError('gone')"
