"""Options about failures: mistakes are found at decoration, and what is right arrives checked."""

from typing import Any

import pytest
from pydantic import BaseModel

from raysched import (
    Fail,
    InvalidOption,
    Retry,
    TriggerRule,
    escalate,
    min_success,
    quote,
    skip,
    task,
    when,
)
from raysched.errors import TaskRunSkipped
from raysched.model.options import Escalation
from raysched.model.triggers import MinSuccess
from raysched.results.envelope import decode

GIB = 1024**3


def work(path: str = "", n: int = 0) -> None:
    """Say what it does."""


def other(path: str = "", n: int = 0) -> None: ...


async def asynchronous(_: Any) -> bool:
    return True


class Row(BaseModel):
    id: int


class NoModel:
    pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry_on": 3}, r"retry_on=3: 3 is no exception class: give it exception classes"),
        ({"retry_on": "ValueError"}, r"is no exception class"),
        ({"retry_on": int}, r"<class 'int'> is no exception class"),
        ({"retry_on": [ValueError, 3]}, r"3 is no exception class"),
        ({"retry_on": ()}, r"retry_on=\(\): \(\) is no exception class"),
        ({"retry_on": lambda: True}, r"called with one argument, the exception, but takes \(\)"),
        ({"retry_on": asynchronous}, r"must be a plain function, not async def"),
        ({"on_oom": escalate(up_to="4GiB")}, r"on_oom=.*: needs memory=.*memory='2GiB'"),
        (
            {"on_oom": escalate(up_to="1GiB"), "memory": "2GiB"},
            r"up_to is 1,073,741,824 bytes, below memory=2,147,483,648",
        ),
        (
            {"on_oom": escalate(up_to="1GiB"), "memory": lambda attempt: attempt},
            r"memory is a function of the attempt already",
        ),
        ({"on_oom": 2, "memory": 1}, r"on_oom=2: must be escalate\(factor=2, up_to='16GiB'\)"),
        ({"num_cpus": lambda: 1}, r"num_cpus=.*: raised TypeError for attempt 1"),
        ({"memory": lambda attempt: 2 - attempt}, r"at attempt 2: memory=0: must be bytes"),
        (
            {"num_gpus": lambda attempt: 1 / (3 - attempt)},
            r"raised ZeroDivisionError for attempt 3",
        ),
        ({"resources": lambda _: {"CPU": 1}}, r"at attempt 1: resources=.*: use num_cpus"),
        ({"queue_timeout_seconds": 0}, r"queue_timeout_seconds=0: must be a number of seconds"),
        ({"total_timeout_seconds": "1"}, r"total_timeout_seconds='1'"),
        ({"heartbeat_timeout_seconds": -1}, r"heartbeat_timeout_seconds=-1"),
        ({"heartbeat_timeout_seconds": 0.01}, r"heartbeat_timeout_seconds=0.01: must be 1 or more"),
        ({"trigger_rule": "all_dne"}, r"trigger_rule='all_dne'.*did you mean 'all_done'\? The rul"),
        ({"trigger_rule": 3}, r"trigger_rule=3: there is no such rule; The rules are all_success"),
        ({"setup": 1}, r"setup=1: must be True or False"),
        ({"setup": True, "teardown": True}, r"a setup task cannot be a teardown task, too"),
        ({"max_failures": -1}, r"max_failures=-1: must be a number such as 3, or a share such as"),
        ({"max_failures": 1.5}, r"max_failures=1.5"),
        ({"max_failures": 0.0}, r"max_failures=0.0"),
        ({"max_failures": True}, r"max_failures=True"),
        ({"max_same_failures": -1}, r"max_same_failures=-1: must be an integer, 0 or more"),
        ({"check": 3}, r"check=3: must be a function of the result, or a type that pydantic"),
        ({"check": NoModel}, r"pydantic cannot validate by this type: Unable to generate"),
        ({"check": list[NoModel]}, r"pydantic cannot validate by this type"),
        ({"check": asynchronous}, r"check=.*: must be a plain function, not async def"),
        ({"check": lambda: True}, r"called with one argument, the result, but takes \(\)"),
        ({"fallback": lambda: 1}, r"same arguments.*takes \(\) where the task takes \(path: "),
        ({"fallback": lambda n, path: (n, path)}, r"takes \(n, path\) where the task takes"),
        ({"fallback": lambda path="", n=1: (n, path)}, r"takes \(path='', n=1\) where the task"),
        ({"fallback": lambda path, n: (n, path)}, r"takes \(path, n\) where the task takes"),
        ({"fallback": lambda path="", n=0, *, x: (path, n, x)}, r"takes .* where the task takes"),
        ({"fallback": task(lambda x: x)}, r"takes \(x\) where the task takes"),
        ({"fallback": int}, r"is a class: quote it"),
        (
            {"fallback": iter("a" for _ in "b")},
            r"has to be kept as bytes, but generator cannot be pickled",
        ),
        ({"compensate": 3}, r"compensate=3: must be a task, or a function of the value to undo"),
        ({"compensate": lambda: 1}, r"called with one argument, the value of the task run, but"),
        ({"owner": 3}, r"owner=3: must be a text"),
        ({"runbook": ""}, r"runbook='': must be a text"),
        ({"on_rollback": print}, r"on_rollback=.*put it in brackets"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_mistakes_are_found_at_decoration(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=r"(?s)task 'work'.*" + message):
        task(**options)(work)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: escalate(1, up_to=1), r"escalate\(factor=1\): must be a number, more than 1"),
        (lambda: escalate(up_to="lots"), r"escalate\(up_to='lots'\): must be bytes"),
        (lambda: min_success(-1), r"min_success\(-1\): must be a number such as 3, or a share"),
        (lambda: min_success(1.1), r"min_success\(1.1\)"),
        (lambda: min_success(0.0), r"min_success\(0.0\)"),
        (lambda: Retry(-1), r"Retry\(delay_seconds=-1\): must be seconds, 0 or more"),
        (lambda: Retry(float("nan")), r"Retry\(delay_seconds=nan\)"),
        (lambda: when(1, 3), r"when\(…, 3\): the predicate must be a function"),  # type: ignore[arg-type]
    ],
    ids=["factor", "up_to", "negative", "over 1", "zero", "delay", "nan", "predicate"],
)
def test_mistakes_in_helpers(call: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        call()


def test_defaults() -> None:
    spec = task(work).spec
    assert (spec.retry.retry_on, spec.retry.on_oom, spec.ray_by_attempt) == (None, None, ())
    assert spec.trigger_rule is TriggerRule.ALL_SUCCESS
    assert (spec.setup, spec.teardown, spec.max_failures) == (False, False, None)
    assert (spec.check, spec.fallback, spec.compensate) == (None, None, None)
    assert (spec.owner, spec.runbook) == ("", "")


def test_everything_at_once() -> None:
    spec = task(
        work,
        retry_on=(ValueError, OSError),
        memory="2GiB",
        on_oom=escalate(1.5, up_to="16GiB"),
        queue_timeout_seconds=1,
        total_timeout_seconds=2,
        heartbeat_timeout_seconds=3,
        trigger_rule="none_failed",
        setup=True,
        max_failures=0.05,
        max_same_failures=0,
        check=Row,
        owner="data@example.org",
        runbook="https://example.org/runbook",
    ).spec
    assert spec.retry.retry_on == (ValueError, OSError)
    assert spec.retry.on_oom == Escalation(1.5, 16 * GIB)
    assert spec.queue_timeout_seconds == 1.0
    assert spec.total_timeout_seconds == 2.0
    assert spec.heartbeat_timeout_seconds == 3.0
    assert spec.trigger_rule is TriggerRule.NONE_FAILED
    assert (spec.setup, spec.max_failures, spec.max_same_failures) == (True, 0.05, 0)
    assert spec.check is Row
    assert (spec.owner, spec.runbook) == ("data@example.org", "https://example.org/runbook")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (ValueError, (ValueError,)),
        ([ValueError, KeyError], (ValueError, KeyError)),
        (bool, None),
    ],
    ids=["class", "list", "builtin type"],
)
def test_retry_on(given: Any, expected: Any) -> None:
    if expected is None:
        with pytest.raises(InvalidOption):
            task(work, retry_on=given)
    else:
        assert task(work, retry_on=given).spec.retry.retry_on == expected


def test_answers_of_retry_on() -> None:
    assert (Retry(3, "busy").delay_seconds, Retry(reason="x").delay_seconds) == (3, None)
    assert Fail("no such file").reason == "no such file"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("all_done", TriggerRule.ALL_DONE),
        (TriggerRule.ONE_FAILED, TriggerRule.ONE_FAILED),
        (min_success(3), MinSuccess(3)),
        (min_success(0.5), MinSuccess(0.5)),
    ],
    ids=str,
)
def test_trigger_rules(rule: Any, expected: Any) -> None:
    assert task(work, trigger_rule=rule).spec.trigger_rule == expected


def test_teardowns_run_whatever_happened() -> None:
    assert task(work, teardown=True).spec.trigger_rule is TriggerRule.ALL_DONE_SETUP_SUCCESS
    always = task(work, teardown=True, trigger_rule="always")
    assert always.spec.trigger_rule is TriggerRule.ALWAYS


class TestResourcesByAttempt:
    def test_all_attempts_that_there_may_be(self) -> None:
        spec = task(
            work, retries=1, crash_retries=1, num_cpus=2, memory=lambda attempt: f"{attempt}GiB"
        ).spec
        assert spec.ray == {"num_cpus": 2, "memory": GIB}
        assert spec.ray_by_attempt == tuple({"num_cpus": 2, "memory": n * GIB} for n in (1, 2, 3))

    def test_the_last_ones_repeat(self) -> None:
        spec = task(work, retries=9, num_cpus=lambda attempt: min(attempt, 3)).spec
        assert [options["num_cpus"] for options in spec.ray_by_attempt] == [1, 2, 3]

    def test_more_retries_are_asked_for(self) -> None:
        growing = task(work, crash_retries=0, num_cpus=lambda attempt: attempt)
        assert len(growing.spec.ray_by_attempt) == 1
        assert len(growing.with_options(retries=4).spec.ray_by_attempt) == 5


class TestFallback:
    @pytest.mark.parametrize("value", [0, "", [], {"a": [1]}, Row(id=3)], ids=repr)
    def test_value(self, value: Any) -> None:
        fallback = task(work, fallback=value).spec.fallback
        assert fallback is not None
        assert fallback.spec is None
        assert fallback.value is not None
        assert decode(fallback.value) == value

    @pytest.mark.parametrize("value", [None, len, int], ids=repr)
    def test_quoted(self, value: Any) -> None:
        fallback = task(work, fallback=quote(value)).spec.fallback
        assert fallback is not None
        assert fallback.value is not None
        assert decode(fallback.value) is value

    def test_none_is_no_fallback(self) -> None:
        assert task(work, fallback=None).spec.fallback is None

    def test_is_copied(self) -> None:
        value = [1]
        fallback = task(work, fallback=value).spec.fallback
        value.append(2)
        assert fallback is not None
        assert fallback.value is not None
        assert decode(fallback.value) == [1]

    @pytest.mark.parametrize(
        "function",
        [
            other,
            lambda path="", n=0, more=3: (path, n, more),
            lambda *args, **kwargs: (args, kwargs),
        ],
        ids=["equal", "more with defaults", "everything"],
    )
    def test_function(self, function: Any) -> None:
        fallback = task(work, fallback=function).spec.fallback
        assert fallback is not None
        assert fallback.spec is not None
        assert fallback.spec.fn is function

    def test_task(self) -> None:
        alternative = task(other, retries=2)
        fallback = task(work, fallback=alternative).spec.fallback
        assert fallback is not None
        assert fallback.spec is alternative.spec


def test_compensation() -> None:
    def undo(_: Any) -> None: ...

    as_task = task(undo)
    compensation = task(work, compensate=undo).spec.compensate
    assert compensation is not None
    assert (compensation.name, compensation.fn) == ("undo", undo)
    assert task(work, compensate=as_task).spec.compensate is as_task.spec


@pytest.mark.parametrize("check", [Row, list[Row], int | None, bool, len, lambda r: r > 3])
def test_checks(check: Any) -> None:
    assert task(work, check=check).spec.check is check


def test_skip_is_an_exception_elsewhere() -> None:
    with pytest.raises(TaskRunSkipped, match="no data"):
        skip("no data")


class TestWhenOutsideAFlow:
    def test_the_value_is_handed_over(self) -> None:
        assert task(lambda x: x)(when(3, bool)) == 3
