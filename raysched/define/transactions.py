"""Transactions: task runs that count together, or are undone together. Prefect's words and meaning.

See https://docs.prefect.io/v3/advanced/transactions.
"""

import copy
import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from types import TracebackType
from typing import Any, Literal, Self

from raysched.define.blocks import Block, inside, tell
from raysched.define.cancelling import cancel
from raysched.define.context import current_scope
from raysched.define.driving import apart, finish, until
from raysched.define.logs import get_run_logger
from raysched.define.partial import has_enough
from raysched.define.ports import RunPort, Told
from raysched.define.watching import Watch
from raysched.errors import InvalidOption, UsageError
from raysched.graph.calls import Member, Part
from raysched.model.options import Hook
from raysched.model.states import FAILURES, SUCCESSES, StateType

CANCEL_SECONDS = 60.0
"""How long a rollback waits for the end of what it cancels (seconds)."""

_NONE: Any = object()

CANCELLER = "the rollback of a transaction"
"""Who cancels what is open then, for people."""


class CommitMode(StrEnum):
    """When a transaction commits, in Prefect's words."""

    EAGER = "eager"
    """At the end of its own block, also if one around it is rolled back later."""
    LAZY = "lazy"
    """With the transaction around it; at the end of its block if there is none."""
    OFF = "off"
    """Only by `commit()`; otherwise it is rolled back."""


class _Phase(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"


class Transaction(Block):
    """A block of a flow function whose task runs count together (see `transaction`).

    Hooks get one for each task run, inside of that of the block.

    Attributes:
        key: What it is called in logs; in a hook the key of the task run, for example `write[0]`.
        commit_mode: When it commits.
    """

    def __init__(self, key: str | None = None, commit_mode: CommitMode | None = None) -> None:
        super().__init__()
        self.key = key
        self.commit_mode = commit_mode
        self._values: dict[str, Any] = {}
        self._phase = _Phase.PENDING
        self._entered = ExitStack()
        self._has_lost = False

    def set(self, name: str, value: Any) -> None:
        """Keep a value for the hooks, in the flow's process."""
        self._values[name] = value

    def get(self, name: str, default: Any = _NONE) -> Any:
        """Return a copy of a value that was kept here, or in a transaction around this one.

        Args:
            name: Its name.
            default: What is returned if there is none.

        Raises:
            ValueError: There is none, and no default.
        """
        if name in self._values:
            # As in Prefect: what is kept changes by `set` only.
            return copy.deepcopy(self._values[name])
        if isinstance(self.around, Transaction):
            return self.around.get(name, default)
        if default is _NONE:
            raise ValueError(f"the transaction has no value {name!r}: keep one by .set first")
        return default

    def result(self) -> Any:
        """Return, in a hook, the value of its task run.

        Raises:
            ResultError: It was not kept, or is lost.
            UsageError: This is a transaction of a block.
        """
        raise UsageError("result() is the value of a task run: call it in a hook of a task")

    def is_active(self) -> bool:
        """Whether its block is running."""
        return self._phase is _Phase.ACTIVE

    def is_committed(self) -> bool:
        """Whether it has committed."""
        return self._phase is _Phase.COMMITTED

    def is_rolled_back(self) -> bool:
        """Whether it was rolled back."""
        return self._phase is _Phase.ROLLED_BACK

    def commit(self) -> bool:
        """Wait for what is open in it, and commit; return whether it has.

        It has not if it was over already, or if something in it failed: that rolls it back.
        """
        finish(self._settle(blocking=True))
        lost = self._failed()
        if lost:
            finish(self._roll_back(_named(lost), blocking=True))
            return False
        return finish(self._commit(blocking=True))

    def rollback(self) -> bool:
        """Cancel what is open in it, and undo the rest; return False if it was over already."""
        finish(self._cancel_open(blocking=True))
        return finish(self._roll_back("the flow asked for it", blocking=True))

    def __enter__(self) -> Self:
        if current_scope() is None:
            raise UsageError(
                "transaction() only works in a flow: put it into a function with @flow"
            )
        if self._phase is not _Phase.PENDING:
            raise UsageError("a transaction can be entered once: make another by transaction()")
        self.around = self._entered.enter_context(inside(self))
        if self.commit_mode is None:
            around = self.around
            inherited = around.commit_mode if isinstance(around, Transaction) else None
            self.commit_mode = inherited or CommitMode.LAZY
        self._phase = _Phase.ACTIVE
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        finish(self._leave(error, blocking=True))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave(error, blocking=False)

    async def _leave(self, error: BaseException | None, *, blocking: bool) -> None:
        self._entered.close()
        reason = error or await self._interrupted(blocking=blocking)
        if reason is not None:
            await self._cancel_open(blocking=blocking)
            await self._lose(f"{type(reason).__name__} was raised in it", blocking=blocking)
            if error is None:  # otherwise the block itself goes on raising it
                raise reason
            return
        lost = self._failed()
        if lost or self._has_lost:
            await self._lose(_named(lost) or "one in it was", blocking=blocking)
            self._raise_unknown(lost)
        elif self.commit_mode is CommitMode.EAGER:
            await self._commit(blocking=blocking)
        elif self.around is not None:
            self.around.begun.append(self)
        elif self.commit_mode is CommitMode.LAZY:
            await self._commit(blocking=blocking)
        else:
            await self._roll_back("nobody committed it", blocking=blocking)

    async def _interrupted(self, *, blocking: bool) -> BaseException | None:
        """Wait for what was begun in it; return what interrupted that."""
        try:
            await self._settle(blocking=blocking)
        except BaseException as reason:  # noqa: BLE001 - also Ctrl-C rolls back before it goes on
            return reason
        return None

    async def _settle(self, *, blocking: bool) -> None:
        """Wait for what was begun in it."""
        for port, parts in self._parts_by_port():
            with Watch(parts) as watch:
                await until(port, watch.satisfied, blocking=blocking)

    async def _cancel_open(self, *, blocking: bool) -> None:
        for port, parts in self._parts_by_port():
            cancel(port, parts, CANCELLER)
            with Watch(parts) as watch:
                # Not `until`: the flow function may have been told to end, and this is its end.
                if blocking:
                    ended = port.wait(watch.satisfied, CANCEL_SECONDS)
                else:
                    ended = await port.wait_async(watch.satisfied, CANCEL_SECONDS)
            if not ended:
                get_run_logger().error(
                    "%s: %d task runs that were cancelled have not ended", self, watch.open
                )

    async def _lose(self, why: str, *, blocking: bool) -> None:
        await self._roll_back(why, blocking=blocking)
        if isinstance(self.around, Transaction):
            self.around._has_lost = True  # noqa: SLF001 - its own class

    async def _commit(self, *, blocking: bool) -> bool:
        if self.is_committed() or self.is_rolled_back():
            return False
        self._phase = _Phase.COMMITTED
        for each in self.begun:
            if isinstance(each, Transaction):
                await each._commit(blocking=blocking)  # noqa: SLF001 - its own class
            elif not isinstance(each, Block):
                for run in self._completed(*each, kind="on_commit"):
                    await run.call(run.hooks, "on_commit", blocking=blocking)
        return True

    async def _roll_back(self, why: str, *, blocking: bool) -> bool:
        if self.is_committed() or self.is_rolled_back():
            return False
        self._phase = _Phase.ROLLED_BACK
        get_run_logger().warning("%s is rolled back: %s", self, why)
        for each in reversed(self.begun):
            if isinstance(each, Transaction):
                await each._roll_back(why, blocking=blocking)  # noqa: SLF001 - its own class
            elif not isinstance(each, Block):
                await self._undo(*each, blocking=blocking)
        return True

    async def _undo(self, port: RunPort, part: Part, *, blocking: bool) -> None:
        group, indices = part
        undone = [index for index in indices if group.visible[index] in SUCCESSES]
        for run in reversed(list(self._completed(port, part, kind="on_rollback"))):
            if not await run.call(run.hooks[::-1], "on_rollback", blocking=blocking):
                # It may be half undone: that is in the log, and not to be called undone.
                undone.remove(run.member[1])
        if undone:
            port.roll_back(group, undone)

    def _completed(self, port: RunPort, part: Part, kind: str) -> Iterator["_TaskRun"]:
        """Yield the completed task runs that have hooks of a kind."""
        group, indices = part
        hooks: tuple[Hook, ...] = getattr(group.spec.hooks, kind)
        if hooks:
            for index in indices:
                if group.visible[index] in SUCCESSES:
                    yield _TaskRun(self, port, (group, index), hooks)

    def _parts_by_port(self) -> list[tuple[RunPort, list[Part]]]:
        parts: dict[int, tuple[RunPort, list[Part]]] = {}
        for each in self.begun:
            if not isinstance(each, Block):
                port, part = each
                parts.setdefault(id(port), (port, []))[1].append(part)
        return list(parts.values())

    def _failed(self) -> list[tuple[RunPort, Member]]:
        """Return what failed in it, unless that does not matter to anybody."""
        return [
            (port, (group, index))
            for port, parts in self._parts_by_port()
            for group, indices in parts
            if not (group.spec.teardown or has_enough(group))
            for index in indices
            if group.visible[index] in FAILURES
        ]

    def _raise_unknown(self, lost: list[tuple[RunPort, Member]]) -> None:
        """Raise the first failure that the flow function was not told of."""
        unknown = [(port, member) for port, member in lost if member not in self.told]
        if not unknown:
            return
        for port, (group, index) in unknown:
            tell(port, group, (index,), Told.RAISED)
        roots = [
            (port, (group, index))
            for port, (group, index) in unknown
            if group.visible[index] != StateType.UPSTREAM_FAILED
        ]
        port, member = (roots or unknown)[0]
        raise port.error(member)

    def __str__(self) -> str:
        return f"transaction {self.key!r}" if self.key else "a transaction"


class _TaskRun(Transaction):
    """What a hook gets: a completed task run of a transaction."""

    def __init__(
        self, around: Transaction, port: RunPort, member: Member, hooks: tuple[Hook, ...]
    ) -> None:
        group, index = member
        super().__init__(group.key(index), around.commit_mode)
        self.around = around
        self.member = member
        self.hooks = hooks
        self._phase = around._phase  # noqa: SLF001 - its own class
        self._port = port

    def result(self) -> Any:
        """See `Transaction.result`."""
        return self._port.value(self.member)

    async def call(self, hooks: Iterable[Hook], kind: str, *, blocking: bool) -> bool:
        """Call hooks; return whether none raised. One that raises does not stop the others."""
        well = True
        for hook in hooks:
            try:
                with inside(None):
                    called = hook(self)
                    if inspect.isawaitable(called):
                        await (apart(called) if blocking else called)
            except Exception:  # noqa: BLE001 - a user's hook may raise anything
                well = False
                name = getattr(hook, "__qualname__", repr(hook))
                get_run_logger().exception("%s hook %s of %s raised", kind, name, self.key)
        return well


def transaction(
    key: str | None = None,
    commit_mode: CommitMode | Literal["eager", "lazy", "off"] | None = None,
) -> Transaction:
    """Return a transaction: a block of a flow in which task runs count together.

    ```python
    with transaction() as txn:      # or `async with`
        txn.set("path", path)
        write(path)                 # @write.on_rollback removes it if check fails
        check(path)
    ```

    At the end of the block task runs that are still open are waited for. If all went well, the
    `on_commit` hooks of the tasks are called, in the order of the calls; if the block raises, or a
    task run in it failed, what is open is cancelled and the `on_rollback` hooks of what had
    completed are called in reverse order. A failure that the flow has caught or read rolls back
    too, as in Prefect; one that it does not know of is raised by the end of the block. A hook gets
    a `Transaction` of its task run: `txn.get(name)`, `txn.key`, `txn.result()`. One that raises is
    logged and does not stop the others. A transaction in another one commits with that by default,
    and rolls it back.

    What is durable: the task runs with their states and values, and the mark that they were rolled
    back, with which they are not used again. What is not: the transaction itself, what `set`
    keeps, and hooks that were not called yet. They live in the flow's process; if that is killed
    in the block, no hook runs. What has to be undone whenever the whole run fails is better said
    by the task's option `compensate`.

    Args:
        key: What it is called in logs. It is not looked up: unlike in Prefect, a transaction of
            the same key in another run is another one.
        commit_mode: When it commits (see `CommitMode`); None for that of the one around it, or
            `"lazy"`.

    Raises:
        InvalidOption: There is no such mode, or the key is empty.
    """
    if key == "":
        raise InvalidOption("transaction(key=''): must be a text that is not empty, or None")
    try:
        mode = None if commit_mode is None else CommitMode(commit_mode)
    except ValueError:
        raise InvalidOption(
            f"transaction(commit_mode={commit_mode!r}): must be one of {', '.join(CommitMode)}"
        ) from None
    return Transaction(key, mode)


def _named(lost: list[tuple[RunPort, Member]]) -> str:
    if not lost:
        return ""
    group, index = lost[0][1]
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return f"{group.key(index)}{more} did not succeed"
