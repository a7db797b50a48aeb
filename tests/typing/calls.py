"""Typed calls, checked by mypy: `assert_type` is what users see, each ignored error is wanted."""

# assert_type hands the awaitable on, and nobody awaits it.
# mypy: disable-error-code="unused-awaitable,unused-coroutine"

import asyncio
import sqlite3
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, assert_type

from raysched import (
    Fail,
    Flow,
    PartialFutureList,
    Retry,
    State,
    Successes,
    Task,
    TaskFuture,
    TaskFutureList,
    Transaction,
    TriggerRule,
    allow_failure,
    as_completed,
    escalate,
    flow,
    in_context,
    min_success,
    once_per_worker,
    quote,
    skip,
    task,
    transaction,
    unmapped,
    wait,
    when,
)


@task
def parse(path: str, lines: int = 0) -> list[int]:
    return [len(path), lines]


@task(retries=3, retry_delay_seconds=[1, 10], num_cpus=2, memory="2GiB")
def total(values: list[int]) -> int:
    return sum(values)


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@flow
def report(day: str) -> int:
    return total(parse(day))


@flow(retries=1, timeout_seconds=60)
async def collect(count: int) -> bytes:
    return b"".join(await asyncio.gather(*(fetch(str(n)) for n in range(count))))


class Shop:
    @task
    def price(self, net: int) -> float:
        return float(net)


def check_declarations() -> None:
    assert_type(total.name, str)
    assert_type(report("today"), int)
    assert_type(total([1]), int)
    assert_type(total.fn([1]), int)
    assert_type(total.with_options(retries=1)([1]), int)
    assert_type(Shop().price(1), float)
    assert_type(task(lambda: 3)(), int)
    parse("a", lines=3)

    parse(3)  # type: ignore[call-overload]
    parse("a", line=3)  # type: ignore[call-overload]
    report()  # type: ignore[call-overload]
    Shop().price("1")  # type: ignore[call-overload]
    task(retrys=3)  # type: ignore[call-overload]
    task(retries="3")  # type: ignore[call-overload]
    flow(num_cpus=1)  # type: ignore[call-overload]


def check_futures() -> None:
    parsed = parse.submit("a")
    assert_type(parsed, TaskFuture[list[int]])
    assert_type(parsed.result(), list[int])
    assert_type(parsed.result(timeout=1), list[int])
    assert_type(parsed.result(raise_on_failure=False), list[int] | BaseException)
    assert_type(parsed.state, State[list[int]])
    assert_type(total.submit(parsed, wait_for=[parsed]).result(), int)
    assert_type(fetch.submit("u"), TaskFuture[bytes])
    assert_type(total.submit(allow_failure(parsed), return_state=True), State[int])
    done, not_done = wait([parsed], timeout=1)
    assert_type(done, set[TaskFuture[list[int]]])
    assert_type(not_done, set[TaskFuture[list[int]]])
    for future in as_completed([parsed]):
        assert_type(future, TaskFuture[list[int]])
    parsed.results()  # type: ignore[attr-defined]


def check_maps() -> None:
    parsed = parse.map(["a", "b"], unmapped(3))
    assert_type(parsed, TaskFutureList[list[int]])
    assert_type(parsed.result(), list[list[int]])
    assert_type(parsed[0], TaskFuture[list[int]])
    assert_type(parsed[1:], TaskFutureList[list[int]])
    assert_type(total.map(parsed).result(), list[int])
    assert_type(fetch.map(["u"]), TaskFutureList[bytes])
    assert_type(total.map([[1]], return_state=True), list[State[int]])
    assert_type([future.key for future in parsed], list[str])


def numbers(first: int) -> Iterator[list[int]]:
    """Yield an object and clean up after it."""
    yield [first]


def check_objects() -> None:
    assert_type(once_per_worker(numbers, 1), list[int])
    assert_type(in_context(numbers)(1), Iterator[list[int]])
    assert_type(once_per_worker(contextmanager(numbers), 1), list[int])
    assert_type(once_per_worker(sqlite3.connect, "a.db"), sqlite3.Connection)
    assert_type(once_per_worker(Shop), Shop)
    assert_type(total(once_per_worker(numbers, first=1)), int)
    once_per_worker(numbers, "1")  # type: ignore[call-overload]
    total(once_per_worker(Shop))  # type: ignore[call-overload]


def check_states() -> None:
    assert_type(total([1], return_state=True), State[int])
    assert_type(report("d", return_state=True).result(), int)
    assert_type(total([1], wait_for=[]), int)


def decide(error: BaseException) -> Retry | Fail | bool:
    """Answer as `retry_on` may."""
    return Retry(3, "busy") if isinstance(error, OSError) else Fail("ours")


def check_policies() -> None:
    assert_type(total.with_options(retry_on=(OSError, KeyError))([1]), int)
    total.with_options(retry_on=decide, on_oom=escalate(2, up_to="16GiB"))
    total.with_options(num_cpus=lambda attempt: attempt, memory=lambda attempt: f"{attempt}GiB")
    total.with_options(trigger_rule="all_done", max_failures=0.1, max_same_failures=3)
    total.with_options(trigger_rule=TriggerRule.ALWAYS, check=bool, fallback=quote(None))
    total.with_options(trigger_rule=min_success(0.9), fallback=0, compensate=print)
    total.with_options(teardown=True, owner="me", runbook="https://example.org")

    total.with_options(trigger_rule="all_doen")  # type: ignore[arg-type]
    total.with_options(retry_on=int)  # type: ignore[arg-type]
    total.with_options(on_oom=2)  # type: ignore[arg-type]
    total.with_options(max_failures="all")  # type: ignore[arg-type]


def check_trigger_rules() -> None:
    parsed = parse.submit("a")
    assert_type(total.submit(parsed, trigger_rule="all_done"), TaskFuture[int])
    assert_type(total(parsed, trigger_rule=TriggerRule.ONE_FAILED), int)
    assert_type(total([1], wait_for=[parsed], trigger_rule=min_success(1)), int)
    assert_type(total([1], trigger_rule="always", return_state=True), State[int])
    assert_type(total.map([parsed], trigger_rule="all_done"), TaskFutureList[int])
    assert_type(total.submit(when(parsed, len)), TaskFuture[int])
    total.submit(parsed, trigger_rule="all_doen")  # type: ignore[call-overload]


def check_maps_that_may_lose_some() -> None:
    parsed = parse.map(["a", "b"], min_success=0.95)
    assert_type(parsed, PartialFutureList[list[int]])
    assert_type(parsed.result(), Successes[list[int]])
    assert_type(parsed.result().failures, list[BaseException])
    assert_type(parsed.result(raise_on_failure=False), list[list[int] | BaseException])
    assert_type(parsed.cancel(), bool)
    assert_type(parsed[0].cancel(), bool)
    assert_type(fetch.map(["u"], min_success=1), PartialFutureList[bytes])
    assert_type(total.map([parsed], min_success=1, return_state=True), list[State[int]])
    parse.map(["a"], min_success="most")  # type: ignore[call-overload]


def check_transactions() -> None:
    with transaction("load", commit_mode="eager") as txn:
        assert_type(txn, Transaction)
        assert_type(txn.is_committed(), bool)

    @total.on_rollback
    def undo(txn: Transaction) -> None: ...

    assert_type(undo.__name__, str)
    transaction(commit_mode="late")  # type: ignore[arg-type]


def check_going_on() -> None:
    assert_type(report.resume("last"), int)
    assert_type(report.resume("last", rerun_changed=True, confirmed=True), int)
    assert_type(report.resume(return_state=True), State[int])
    assert_type(report.rerun("last", parameters={"day": "today"}, again=["parse"]), int)
    assert_type(report.rerun("last", return_state=True), State[int])

    task(idempotent=False)
    task(idempotent="no")  # type: ignore[call-overload]


def check_skipping(rows: list[int]) -> int:
    if not rows:
        skip("no rows")
    return len(rows)


async def check_async() -> None:
    assert_type(fetch("u"), Coroutine[Any, Any, bytes])
    assert_type(await fetch("u"), bytes)
    assert_type(await fetch.submit("u"), bytes)
    assert_type(await total.map([[1]]), list[int])
    assert_type(await total.map([[1]], min_success=1), Successes[int])
    assert_type(await collect(3), bytes)
    assert_type(await collect(3, return_state=True), State[bytes])
    assert_type(await collect.resume("last"), bytes)
    assert_type(await collect.resume("last", return_state=True), State[bytes])
    assert_type(await collect.rerun("last"), bytes)
    assert_type(await collect.rerun("last", return_state=True), State[bytes])
    assert_type(await asyncio.gather(fetch("a"), fetch("b")), tuple[bytes, bytes])


def check_hooks() -> None:
    @total.on_failure
    def tell(task: Task[Any, Any], run: object, state: State[int]) -> None: ...

    @report.on_completion
    def tell_flow(flow: Flow[Any, Any], run: object, state: State[int]) -> None: ...

    assert_type(tell.__name__, str)
    assert_type(tell_flow.__name__, str)
