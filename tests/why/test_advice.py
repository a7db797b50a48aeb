"""The table of advice: which rule applies to what."""

from dataclasses import replace

import pytest

from raysched.client.advice import RULES, advise
from raysched.client.advice_case import Case
from raysched.model.values import CrashKind, FailureClass, TimeoutKind

USER = Case(FailureClass.USER)
REFUSED = replace(USER, type="ConnectionError")
WORKER = Case(FailureClass.INFRASTRUCTURE, CrashKind.WORKER_DIED)
MEMORY = Case(FailureClass.INFRASTRUCTURE, CrashKind.OUT_OF_MEMORY)
LATE = Case(FailureClass.TIMEOUT, TimeoutKind.ATTEMPT)

CASES = {
    "transient-error": REFUSED,
    "transient-error-again": replace(REFUSED, options={"retries": 3}, attempts=4),
    "retried-bug": replace(USER, type="KeyError", attempts=3, options={"retries": 2}),
    "many-alike": replace(USER, type="KeyError", count=20),
    "few-of-a-map": replace(USER, type="KeyError", count=1, group=11, victims=1),
    "memory-error": replace(USER, type="MemoryError"),
    "disk-full": replace(
        USER, type="OSError", message="[Errno 28] No space left on device: '/data/out'"
    ),
    "check-failed": replace(USER, type="CheckFailed"),
    "cannot-be-pickled": replace(USER, type="SerializationError"),
    "out-of-memory": MEMORY,
    "out-of-memory-again": replace(MEMORY, options={"on_oom": {"factor": 2.0, "up_to": 2**34}}),
    "native-crash": replace(WORKER, signal="SIGSEGV"),
    "killed": replace(WORKER, signal="SIGKILL"),
    "process-ended-itself": replace(WORKER, exited=True),
    "worker-ended": WORKER,
    "node-died": replace(WORKER, kind=CrashKind.NODE_DIED),
    "out-of-disk": replace(WORKER, kind=CrashKind.OUT_OF_DISK),
    "object-lost": replace(WORKER, kind=CrashKind.OBJECT_LOST),
    "runtime-env": replace(WORKER, kind=CrashKind.RUNTIME_ENV),
    "unschedulable": replace(WORKER, kind=CrashKind.UNSCHEDULABLE),
    "driver-lost": replace(WORKER, kind=CrashKind.DRIVER_LOST),
    "queue-timeout": replace(LATE, kind=TimeoutKind.QUEUED),
    "attempt-timeout": LATE,
    "attempt-timeout-again": replace(LATE, options={"retries": 1}, attempts=2),
    "total-timeout": replace(LATE, kind=TimeoutKind.TOTAL),
    "total-timeout-again": replace(
        LATE, kind=TimeoutKind.TOTAL, options={"timeout_seconds": 1.0}, attempts=3
    ),
    "no-heartbeat": replace(LATE, kind=TimeoutKind.HEARTBEAT),
}


@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_each_rule_has_a_case_to_which_it_alone_applies(name: str) -> None:
    assert [advice.rule for advice in advise(CASES[name])] == [name]


@pytest.mark.parametrize(
    "case",
    [
        replace(USER, type="KeyError"),
        # A name that is not there does not come back by trying again.
        replace(USER, type="sqlite3.OperationalError", message="no such table: usage"),
        replace(
            USER, type="KeyError", attempts=3, options={"retries": 2, "retry_on": ["LookupError"]}
        ),
        replace(
            USER, type="KeyError", attempts=3, options={"retries": 2, "retry_condition_fn": "ask"}
        ),
        # What was tried twice was not tried again by retries: there was a crash, or a fallback.
        replace(USER, type="KeyError", attempts=2),
        replace(REFUSED, options={"retry_on": ["busy"]}),
        # The user's function said that it is not worth another try.
        replace(REFUSED, options={"retries": 3, "retry_on": ["busy"]}, attempts=1),
        replace(LATE, options={"retries": 3, "retry_on": ["busy"]}, attempts=1),
        replace(USER, type="KeyError", count=20, options={"max_failures": 3}),
        replace(USER, type="KeyError", count=20, options={"max_same_failures": 7}),
        replace(USER, type="KeyError", count=1, group=11, victims=1, options={"min_success": 5}),
        replace(USER, type="KeyError", count=1, group=11, victims=1, options={"max_failures": 0}),
        replace(USER, type="KeyError", count=1, group=11),
        replace(USER, type="KeyError", count=2, group=11, victims=1),
        replace(USER, type="CheckFailed", options={"fallback": True}),
        Case(FailureClass.CANCELLED),
        Case(FailureClass.UPSTREAM),
    ],
)
def test_where_nothing_fixed_helps_there_is_no_advice(case: Case) -> None:
    assert advise(case) == ()


def test_options_that_the_task_has_are_not_advised_again() -> None:
    (advice,) = advise(replace(MEMORY, options={"memory": "1073741824"}))
    assert advice.code == 'on_oom=escalate(factor=2, up_to="16GiB")'
    (advice,) = advise(replace(WORKER, options={"memory": "1073741824", "crash_retries": 0}))
    assert advice.code == ""


def test_what_never_began_needs_room() -> None:
    late = replace(LATE, kind=TimeoutKind.TOTAL, attempts=0)
    assert [advice.rule for advice in advise(late)] == ["queue-timeout"]


@pytest.mark.parametrize("kind", [each for each in CrashKind if each is not CrashKind.BACKEND])
def test_every_crash_has_advice(kind: CrashKind) -> None:
    assert advise(Case(FailureClass.INFRASTRUCTURE, kind))


@pytest.mark.parametrize("kind", TimeoutKind)
def test_every_timeout_has_advice(kind: TimeoutKind) -> None:
    assert advise(Case(FailureClass.TIMEOUT, kind))
