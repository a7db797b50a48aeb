"""The table of docs/prefect.md: a test for each row, named by the row's anchor."""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from face import cache_differences
from face.around import caught, ignore, in_flow
from raysched import (
    Fail,
    FlowRunFailed,
    FutureError,
    InvalidOption,
    Retry,
    SerializationError,
    State,
    StateType,
    TaskRunCrashed,
    ThreadPoolTaskRunner,
    UpstreamFailed,
    allow_failure,
    flow,
    get_run,
    quote,
    runtime,
    skip,
    task,
    transaction,
    when,
)

PAGE = (Path(__file__).parents[2] / "docs" / "prefect.md").read_text(encoding="utf-8")
ROWS = re.findall(r'<span id="([\w-]+)">', PAGE)


@task
def same(value: Any) -> Any:
    return value


@task
def fail(message: str = "no") -> int:
    raise ValueError(message)


@dataclass
class Box:
    content: Any


def upstream() -> None:
    def body() -> None:
        with pytest.raises(UpstreamFailed) as error:
            same(fail.submit())
        assert isinstance(error.value.__cause__, ValueError)
        assert error.value.roots == ("fail[0]",)

    in_flow(body)


def returned() -> None:
    assert in_flow(lambda: {"k": [Box(same.submit(1))]}) == {"k": [Box(1)]}
    with pytest.raises(ValueError, match="no"):
        in_flow(lambda: [same.submit(1), fail.submit()])


def unhandled() -> None:
    with pytest.raises(FlowRunFailed, match=r"fail\[0\]"):
        in_flow(lambda: ignore(fail.submit()))


def truth() -> None:
    def body() -> None:
        with pytest.raises(FutureError, match="neither true nor false"):
            bool(same.submit(1))

    in_flow(body)


def outside() -> None:
    assert same(runtime.task_run.key) is None


def submit_outside() -> None:
    for method in (same.submit, same.map):
        with pytest.raises(FutureError, match="only works in a flow"):
            ignore(method([1]))


def copied() -> None:
    def body() -> Any:
        values = [1]
        future = same.submit(values)
        values.append(2)
        return future

    assert in_flow(body) == [1]
    with pytest.raises(SerializationError, match="argument 'value'"):
        in_flow(same.submit, (n for n in range(1)))


def shared() -> None:
    @task
    def extend(values: list[int]) -> int:
        values.append(0)
        return len(values)

    def body() -> Any:
        value = same.submit([])
        return [extend.submit(value), extend.submit(value)]

    assert in_flow(body) == [1, 1]


def allow() -> None:
    @task(crash_retries=0)
    def crash() -> Any:
        return State(StateType.CRASHED, message="the node is gone")

    kind = in_flow(lambda: same(allow_failure(crash.submit())))
    assert isinstance(kind, TaskRunCrashed)


def state() -> None:
    def body() -> Any:
        assert same(same.submit(1, return_state=True)) == 1
        failed = fail.submit(return_state=True)
        with pytest.raises(FutureError, match="has no value") as error:
            ignore(same.submit(failed))
        assert isinstance(error.value.__cause__, ValueError)
        return same(allow_failure(failed))

    assert str(in_flow(body)) == "no"


def quoted() -> None:
    with pytest.raises(FutureError, match="cannot be pickled"):
        in_flow(lambda: same.submit(quote(same.submit(1))))


def result() -> None:
    @flow
    async def body() -> Any:
        return same.submit(1, return_state=True).result()

    assert asyncio.run(body()) == 1


def awaited() -> None:
    @flow
    async def body() -> Any:
        future = same.submit(1)
        return await future, future.result()

    assert asyncio.run(body()) == (1, 1)


def whole_list() -> None:
    assert in_flow(lambda: caught(fail.map(["a", "b"]).result)).startswith("ValueError")


def types() -> None:
    for kind in (StateType.TIMED_OUT, StateType.UPSTREAM_FAILED):
        assert State(kind).is_failed()
    for kind in (StateType.CACHED, StateType.SKIPPED):
        assert State(kind).is_completed()


def flow_retry() -> None:
    def body() -> Any:
        futures = [same.submit(n) for n in range(3)]
        keys = [future.key for future in futures if future.wait()]
        if runtime.flow_run.run_count == 1:
            raise ValueError("again")
        return keys

    assert flow(body, retries=1)() == ["same[0]", "same[1]", "same[2]"]


def resume() -> None:
    mended: list[bool] = []

    @flow
    def mending() -> list[int]:
        values: list[int] = same.map(range(3)).result()
        if not mended:
            raise ValueError("not yet")
        return values

    with pytest.raises(ValueError, match="not yet"):
        mending()
    mended.append(True)
    assert mending.resume("last") == [0, 1, 2]
    run = get_run("last")
    assert (run.run_count, {each.attempts for each in run["same"]}) == (2, {1})


def crash() -> None:
    assert (same.spec.retry.crash_retries, same.spec.retry.retries) == (3, 0)


def options() -> None:
    with pytest.raises(InvalidOption, match="there is no option 'asset_deps'"):
        task(asset_deps=None)  # type: ignore[call-overload]
    assert task(num_cpus=2)(same.fn).spec.ray == {"num_cpus": 2}


def names() -> None:
    with pytest.raises(InvalidOption, match="which is no parameter"):
        task(same.fn, task_run_name="{other}")


def runner() -> None:
    assert flow(same.fn, task_runner=ThreadPoolTaskRunner(max_workers=3)).spec.max_parallel == 3


def server() -> None:
    for name in ("serve", "deploy", "delay", "from_source", "visualize"):
        with pytest.raises(AttributeError, match=rf"no \.{name}: use "):
            getattr(flow(same.fn), name)
    with pytest.raises(AttributeError, match=r"no \.delay: use "):
        same.delay  # noqa: B018


def runtime_import() -> None:
    assert runtime.flow_run.id is None


def generator() -> None:
    def rows() -> Iterator[int]:
        yield 1

    with pytest.raises(InvalidOption, match="return a list"):
        task(rows)


def rules() -> None:
    assert isinstance(in_flow(lambda: same(fail.submit(), trigger_rule="all_done")), ValueError)
    assert isinstance(in_flow(lambda: same(allow_failure(fail.submit()))), ValueError)


def skipping() -> None:
    @task
    def load(rows: list[int]) -> list[int]:
        return rows or skip("no rows")

    def body() -> list[StateType]:
        futures = [load.submit([]), same.submit(load.submit([])), same.submit(when(0, bool))]
        for future in futures:
            future.wait()
        return [future.state.type for future in futures]

    assert in_flow(body) == [StateType.SKIPPED] * 3


def fail_if_empty(text: str) -> str:
    return text or fail.fn()  # type: ignore[return-value]


def some_fail() -> None:
    found = in_flow(lambda: task(fail_if_empty).map(["a", "", "b"], min_success=0.6).result())
    assert found == ["a", "b"]
    assert [str(error) for error in found.failures] == ["no"]


def retry_on() -> None:
    @task(retries=1, retry_on=lambda error: Retry(0, "busy") if "busy" in str(error) else Fail())
    def load(message: str) -> int:
        if runtime.task_run.attempt == 1:
            raise ValueError(message)
        return 3

    assert in_flow(load, "busy") == 3
    assert in_flow(caught, load, "wrong") == "ValueError: wrong"


def fallback() -> None:
    assert in_flow(fail.with_options(fallback=0)) == 0


def cancel() -> None:
    slow = fail.with_options(retries=1, retry_delay_seconds=600)

    def body() -> StateType:
        future = slow.submit()
        assert future.cancel()
        future.wait()
        return future.peek()

    assert in_flow(body) is StateType.CANCELLED


def transaction_waits() -> None:
    def body() -> None:
        with transaction():
            ignore(fail.submit())

    assert in_flow(caught, body) == "ValueError: no"


def transaction_rolls_back_at_its_end() -> None:
    undone: list[str] = []
    write = task(same.fn, name="write", on_rollback=[lambda txn: undone.append(txn.key)])

    def body() -> None:
        with transaction():
            caught(fail)
            write(1)

    in_flow(body)
    assert undone == ["write[0]"]


def transaction_hook() -> None:
    committed: list[str] = []
    write = task(same.fn, name="write", on_commit=[lambda txn: txn.nothing])
    write.on_commit(lambda txn: committed.append(txn.key))

    def body() -> bool:
        with transaction() as txn:
            write(1)
        return txn.is_committed()

    assert in_flow(body)
    assert committed == ["write[0]"]


def transaction_value() -> None:
    values: list[int] = []
    write = task(same.fn, on_commit=[lambda txn: values.append(txn.result())])

    def body() -> None:
        with transaction():
            write(3)

    in_flow(body)
    assert values == [3]


def transaction_key() -> None:
    def body() -> bool:
        with transaction("load") as txn:
            return txn.is_committed()

    assert [in_flow(body), in_flow(body)] == [False, False]


CHECKS: dict[str, Callable[[], None]] = {
    "upstream": upstream,
    "returned": returned,
    "unhandled": unhandled,
    "truth": truth,
    "outside": outside,
    "submit-outside": submit_outside,
    "copied": copied,
    "shared": shared,
    "allow": allow,
    "state": state,
    "quote": quoted,
    "result": result,
    "await": awaited,
    "list": whole_list,
    "types": types,
    "flow-retry": flow_retry,
    "resume": resume,
    "crash": crash,
    "options": options,
    "names": names,
    "runner": runner,
    "server": server,
    "runtime": runtime_import,
    "rules": rules,
    "skip": skipping,
    "min-success": some_fail,
    "retry-on": retry_on,
    "fallback": fallback,
    "cancel": cancel,
    "txn-wait": transaction_waits,
    "txn-later": transaction_rolls_back_at_its_end,
    "txn-hook": transaction_hook,
    "txn-task": transaction_value,
    "txn-key": transaction_key,
    **cache_differences.CHECKS,
    "generator": generator,
}


@pytest.mark.parametrize("row", ROWS)
def test_row(row: str) -> None:
    CHECKS[row]()


def test_every_check_has_a_row() -> None:
    assert list(CHECKS) == ROWS
