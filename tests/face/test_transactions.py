"""Transactions: what was called in a block counts together, or is undone together."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from face.around import caught, ignore, in_flow
from face.steps import fail
from face.told import Told
from raysched import (
    CommitMode,
    InvalidOption,
    StateType,
    TaskFuture,
    UsageError,
    flow,
    get_run,
    runtime,
    task,
    transaction,
)


def test_commits_in_order(told: Told) -> None:
    a, b = told.write("a"), told.write("b")

    def body() -> tuple[bool, bool, bool]:
        with transaction() as txn:
            a(1)
            active = txn.is_active()
            ignore(b.submit(2))
            ignore(a.map([3, 4]))
            assert not told.calls
        return active, txn.is_committed(), txn.is_rolled_back()

    assert in_flow(body) == (True, True, False)
    assert told.calls == [
        ("commit", "a[0]", 1),
        ("commit", "b[0]", 2),
        ("commit", "a[1]", 3),
        ("commit", "a[2]", 4),
    ]


def test_rolls_back_in_reverse_order(told: Told) -> None:
    a, b = told.write("a"), told.write("b")

    @flow
    def body() -> str:
        txn = transaction()

        def block() -> None:
            with txn:
                a.map([1, 2]).wait()
                b(3)
                a.map([4]).wait()
                raise KeyError("mine")

        assert caught(block) == "KeyError: 'mine'"
        assert txn.is_rolled_back()
        return str(runtime.flow_run.id)

    run = get_run(body())
    assert [key for _, key, _ in told.calls] == ["a[2]", "b[0]", "a[1]", "a[0]"]
    assert {kind for kind, _, _ in told.calls} == {"rollback"}
    assert run.state.type is StateType.COMPLETED


def test_what_is_open_is_cancelled(told: Told) -> None:
    @task(retries=1, retry_delay_seconds=600)
    def slow_to_retry() -> None:
        raise ValueError("again")

    a = told.write("a")

    @flow
    def body() -> list[StateType]:
        futures: list[TaskFuture[Any]] = []

        def block() -> None:
            with transaction():
                a(1)
                futures.append(slow_to_retry.submit())
                raise KeyError

        caught(block)
        return [future.state.type for future in futures]

    assert body() == [StateType.CANCELLED]
    assert told.calls == [("rollback", "a[0]", 1)]


class TestFailuresInIt:
    def test_one_that_nobody_knows_is_raised(self, told: Told) -> None:
        a = told.write("a")

        def body() -> str:
            with transaction() as txn:
                a(1)
                ignore(fail.submit("why"))
            return str(txn)

        assert in_flow(caught, body) == "ValueError: why"
        assert told.calls == [("rollback", "a[0]", 1)]

    def test_the_root_is_raised(self, told: Told) -> None:
        a = told.write("a")

        def body() -> None:
            with transaction():
                ignore(a.submit(fail.submit("root")))

        assert in_flow(caught, body) == "ValueError: root"

    @pytest.mark.parametrize(
        "known",
        [
            lambda: caught(fail),
            lambda: caught(fail.submit().result),
            lambda: fail(return_state=True),
            lambda: fail.submit().result(raise_on_failure=False),
            lambda: caught(fail.map([1, 2]).result),
        ],
        ids=["called", "result", "return_state", "not raised", "map"],
    )
    def test_one_that_is_known_rolls_back_too(self, told: Told, known: Callable[[], Any]) -> None:
        a = told.write("a")

        def body() -> bool:
            with transaction() as txn:
                a(1)
                known()
            return txn.is_rolled_back()

        assert in_flow(body)
        assert told.calls == [("rollback", "a[0]", 1)]

    def test_what_failed_has_nothing_to_undo(self) -> None:
        calls: list[str] = []
        broken = fail.with_options(on_rollback=[lambda txn: calls.append(txn.key)])

        def body() -> None:
            with transaction():
                broken()

        assert in_flow(caught, body) == "ValueError: None"
        assert not calls

    def test_of_a_map_that_may_lose_some(self, told: Told) -> None:
        @task
        def odd(x: int) -> int:
            if x % 2 == 0:
                raise ValueError(x)
            return x

        odd.on_commit(lambda txn: told.calls.append(("commit", txn.key, txn.result())))

        def body() -> bool:
            with transaction() as txn:
                ignore(odd.map([1, 2, 3], min_success=2))
            return txn.is_committed()

        assert in_flow(body)
        assert [key for _, key, _ in told.calls] == ["odd[0]", "odd[2]"]


class TestNested:
    def test_commits_with_the_one_around(self, told: Told) -> None:
        a = told.write("a")

        def body() -> None:
            with transaction():
                with transaction() as inner:
                    a(1)
                assert not inner.is_committed()
                a(2)

        in_flow(body)
        assert [key for _, key, _ in told.calls] == ["a[0]", "a[1]"]

    def test_is_rolled_back_with_the_one_around(self, told: Told) -> None:
        a = told.write("a")

        def body() -> None:
            with transaction():
                a(1)
                with transaction():
                    a(2)
                a(3)
                raise KeyError

        in_flow(caught, body)
        assert told.calls == [
            ("rollback", "a[2]", 3),
            ("rollback", "a[1]", 2),
            ("rollback", "a[0]", 1),
        ]

    def test_rolls_back_the_one_around(self, told: Told) -> None:
        a = told.write("a")

        def inner() -> None:
            with transaction():
                a(2)
                raise KeyError

        def body() -> bool:
            with transaction() as outer:
                a(1)
                caught(inner)
                a(3)
            return outer.is_rolled_back()

        assert in_flow(body)
        assert [key for _, key, _ in told.calls] == ["a[1]", "a[2]", "a[0]"]

    def test_eager(self, told: Told) -> None:
        a = told.write("a")

        def body() -> None:
            with transaction():
                with transaction(commit_mode="eager") as inner:
                    a(1)
                assert inner.is_committed()
                raise KeyError

        in_flow(caught, body)
        assert told.calls == [("commit", "a[0]", 1)]

    def test_of_a_subflow(self, told: Told) -> None:
        a = told.write("a")
        inner = flow(lambda: a(1), name="inner")

        def body() -> None:
            with transaction():
                inner()
                raise KeyError

        in_flow(caught, body)
        assert told.calls == [("rollback", "a[0]", 1)]


class TestOff:
    def test_nobody_commits(self, told: Told) -> None:
        a = told.write("a")

        def body() -> bool:
            with transaction(commit_mode=CommitMode.OFF) as txn:
                a(1)
            return txn.is_rolled_back()

        assert in_flow(body)
        assert told.calls == [("rollback", "a[0]", 1)]

    def test_committed(self, told: Told) -> None:
        a = told.write("a")

        def body() -> bool:
            with transaction(commit_mode="off") as txn:
                ignore(a.submit(1))
                assert txn.commit()
                assert not txn.commit()
                assert not txn.rollback()
            return txn.is_committed()

        assert in_flow(body)
        assert told.calls == [("commit", "a[0]", 1)]

    def test_rolled_back(self, told: Told) -> None:
        a = told.write("a")

        def body() -> bool:
            with transaction() as txn:
                a(1)
                assert txn.rollback()
            return txn.is_rolled_back()

        assert in_flow(body)
        assert told.calls == [("rollback", "a[0]", 1)]

    def test_what_failed_is_not_committed(self, told: Told) -> None:
        a = told.write("a")

        def body() -> bool:
            with transaction() as txn:
                a(1)
                caught(fail)
                return txn.commit()

        assert not in_flow(body)
        assert told.calls == [("rollback", "a[0]", 1)]


def test_async(told: Told) -> None:
    a = told.write("a")

    async def broken() -> None:
        async with transaction():
            await a.submit(2)
            raise KeyError

    @flow
    async def body() -> None:
        async with transaction():
            ignore(a.submit(1))
        with pytest.raises(KeyError):
            await broken()

    asyncio.run(body())
    assert told.calls == [("commit", "a[0]", 1), ("rollback", "a[1]", 2)]


def test_in_a_task() -> None:
    @task
    def around() -> list[str]:
        calls: list[str] = []
        write = task(lambda x: x, name="write")
        write.on_commit(lambda txn: calls.append(f"commit {txn.result()}"))
        write.on_rollback(lambda txn: calls.append(f"rollback {txn.result()}"))

        def broken() -> None:
            with transaction():
                write(2)
                raise KeyError

        with transaction():
            write(1)
        caught(broken)
        return calls

    assert in_flow(around) == ["commit 1", "rollback 2"]


def test_what_was_rolled_back_runs_again(told: Told) -> None:
    ran: list[int] = []
    a = told.write("a")
    a.on_running(lambda *_: ran.append(runtime.flow_run.run_count or 0))

    @flow(retries=1)
    def body() -> int:
        with transaction():
            a(1)
            if runtime.flow_run.run_count == 1:
                raise ValueError("again")
        return runtime.flow_run.run_count or 0

    assert body() == 2
    assert [kind for kind, _, _ in told.calls] == ["rollback", "commit"]
    assert ran == [1, 2]


class TestMistakes:
    def test_outside_a_flow(self) -> None:
        with pytest.raises(UsageError, match="only works in a flow"), transaction():
            pass

    def test_entered_twice(self) -> None:
        def body() -> None:
            with transaction() as txn, txn:
                pass

        assert "entered once" in in_flow(caught, body)

    def test_result_of_a_block(self) -> None:
        def body() -> None:
            with transaction() as txn:
                txn.result()

        assert "call it in a hook" in in_flow(caught, body)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"commit_mode": "late"}, r"commit_mode='late'\): must be one of eager, lazy, off"),
            ({"key": ""}, r"key=''\): must be a text"),
        ],
        ids=["mode", "key"],
    )
    def test_options(self, options: Any, message: str) -> None:
        with pytest.raises(InvalidOption, match=message):
            transaction(**options)
