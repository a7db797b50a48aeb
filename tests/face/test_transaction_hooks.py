"""Hooks of transactions: what they are given, and what they may do."""

import asyncio
from typing import Any

import pytest

from face.around import caught, in_flow
from face.told import Told
from raysched import Transaction, flow, task, transaction


class TestHooks:
    def test_values(self) -> None:
        found: list[Any] = []

        @task(on_commit=[lambda txn: found.append((txn.get("path"), txn.get("other", 3)))])
        def write() -> None: ...

        def body() -> None:
            with transaction() as txn:
                txn.set("path", ["a"])
                txn.get("path").append("never kept")
                write()
                with transaction() as inner:
                    assert inner.get("path") == ["a"]
                with pytest.raises(ValueError, match=r"no value 'nothing': keep one by \.set"):
                    txn.get("nothing")

        in_flow(body)
        assert found == [(["a"], 3)]

    def test_one_that_raises(self, told: Told, caplog: pytest.LogCaptureFixture) -> None:
        a, b = told.write("a"), told.write("b")

        @b.on_rollback
        def broken(txn: Transaction) -> None:
            raise RuntimeError(txn.key)

        def body() -> None:
            with transaction("load"):
                a(1)
                b(2)
                raise KeyError

        assert in_flow(caught, body).startswith("KeyError")
        assert [key for _, key, _ in told.calls] == ["b[0]", "a[0]"]
        assert "on_rollback hook" in caplog.text
        assert "transaction 'load' is rolled back: KeyError was raised in it" in caplog.text

    @pytest.mark.parametrize("wait", [True, False], ids=["async with", "with"])
    def test_asynchronous_ones(self, *, wait: bool) -> None:
        calls: list[str] = []

        @task
        def write() -> None: ...

        @write.on_commit
        async def later(txn: Transaction) -> None:
            await asyncio.sleep(0)
            calls.append(str(txn.key))

        @flow
        async def body() -> None:
            if wait:
                async with transaction():
                    write()
            else:
                with transaction():
                    write()

        asyncio.run(body())
        assert calls == ["write[0]"]

    def test_what_they_call_is_not_in_it(self, told: Told) -> None:
        a = told.write("a")

        @a.on_rollback
        def by_a_task(txn: Transaction) -> None:
            a(10)

        def body() -> None:
            with transaction(), transaction(commit_mode="eager") as inner:
                a(1)
                inner.rollback()

        in_flow(body)
        assert [key for _, key, _ in told.calls] == ["a[0]"]
