"""Runs that are in the database already, written as the engine writes them."""

import time
from collections.abc import Mapping, Sequence
from itertools import count

from raysched.model.rows import (
    AttemptRow,
    Batch,
    Execution,
    FlowRunChange,
    FlowRunRow,
    GroupRow,
    LogRow,
    TaskRunColumns,
)
from raysched.model.states import StateType
from raysched.model.traces import TraceParent
from raysched.model.values import ErrorInfo
from raysched.settings import settings
from raysched.store import open_store
from raysched.store.sql import SqlStore

SECOND = 10**9
NOON = 1_795_176_000 * SECOND + 123_456_789
"""2026-11-20 12:00:00.123456789 in UTC."""

TRACEBACK = """Traceback (most recent call last):
  File "/shop/flow.py", line 83, in read_usage
    rows = db.execute(
           ^^^^^^^^^^^
sqlite3.OperationalError: no such table: usage
"""
NO_TABLE = ErrorInfo("sqlite3.OperationalError", "no such table: usage", TRACEBACK)

TRACE = bytes(range(16))
"""Id of the trace of a run that was traced."""

_digits = count(1)


def store() -> SqlStore:
    return open_store(settings().resolved_database_url())


def open_run(kept: SqlStore, flow: str, **columns: object) -> tuple[str, int]:
    """Opens a run that started at noon; returns its id and number."""
    run_id = f"{next(_digits):08x}" * 4
    row = FlowRunRow(run_id, flow, f"{flow}-1", StateType.RUNNING, started=NOON, **columns)  # type: ignore[arg-type]
    return run_id, kept.open_run(row)


def close_run(
    kept: SqlStore,
    number: int,
    state: StateType = StateType.COMPLETED,
    message: str = "",
    error: ErrorInfo | None = None,
) -> None:
    """Ends a run after 2.5 s."""
    ended = NOON + 5 * SECOND // 2
    kept.commit(Batch(number, flow_run=FlowRunChange(state, message, ended, error)))


def members(
    group: int,
    indices: Sequence[int],
    state: StateType,
    attempts: int = 1,
    roots: Mapping[int, tuple[str, ...]] | None = None,
) -> TaskRunColumns:
    """Task runs that took a quarter of a second, if they ran."""
    size = len(indices)
    ended = NOON + SECOND // 4 if state.is_terminal and attempts else 0
    return TaskRunColumns(
        group,
        indices,
        [state] * size,
        [attempts] * size,
        [NOON if attempts else 0] * size,
        [ended] * size,
        [None] * size,
        [0] * size,
        roots=dict(roots or {}),
    )


def keep_billing(kept: SqlStore) -> str:
    """A failed run with one root, and forty task runs that only followed."""
    run_id, number = open_run(kept, "billing", parameters='{"month": "2026-10"}', tags=("demo",))
    because = dict.fromkeys(range(40), ("read_usage[0]",))
    batch = Batch(
        number,
        groups=[GroupRow(0, "read_usage", 0, 1), GroupRow(1, "send", 0, 40, mapped=True)],
        task_runs=[
            members(0, [0], StateType.FAILED, attempts=2),
            members(1, range(40), StateType.UPSTREAM_FAILED, attempts=0, roots=because),
        ],
        attempts=[
            AttemptRow(0, 0, attempt, StateType.FAILED, NOON, NOON + SECOND // 4, NO_TABLE)
            for attempt in (1, 2)
        ],
        logs=[
            LogRow(-1, 0, 1, NOON, 20, "raysched.flow", "starting"),
            LogRow(0, 0, 1, NOON + SECOND, 30, "raysched.task", "no luck [yet]"),
        ],
    )
    kept.commit(batch)
    close_run(kept, number, StateType.FAILED, "1 task run failed: read_usage[0]", NO_TABLE)
    return run_id


def keep_sweep(kept: SqlStore) -> str:
    """A failed run with two kinds of failures, one of which stopped its map; fallbacks and undoing.

    Two members of `load` completed by their fallback, and the third one was undone.
    """
    run_id, number = open_run(kept, "sweep")
    loaded = members(0, range(3), StateType.COMPLETED)
    loaded.reasons = {0: "the fallback's value", 1: "the fallback's value"}
    loaded.handled = frozenset({0, 1})
    loaded.rolled_back = frozenset({2})
    stopped = members(1, range(3, 6), StateType.UPSTREAM_FAILED, attempts=0)
    stopped.reasons = dict.fromkeys(range(3), "stopped by max_failures=3")
    followed = members(2, [0], StateType.UPSTREAM_FAILED, attempts=0, roots={0: ("train[0]",)})
    errors = [
        ErrorInfo("builtins.KeyError", f"'{n}'", fingerprint=fingerprint, evidence={"pid": 7})
        for n, fingerprint in enumerate(["a" * 16, "a" * 16, ""])
    ]
    batch = Batch(
        number,
        groups=[
            GroupRow(0, "load", 0, 3, mapped=True),
            GroupRow(1, "train", 0, 6, mapped=True),
            GroupRow(2, "report", 0, 1),
        ],
        task_runs=[loaded, members(1, range(3), StateType.FAILED), stopped, followed],
        attempts=[
            AttemptRow(1, n, 1, StateType.FAILED, NOON, NOON + SECOND // 4, error)
            for n, error in enumerate(errors)
        ],
    )
    kept.commit(batch)
    change = FlowRunChange(StateType.FAILED, "3 task runs failed", NOON + SECOND, late=2)
    kept.commit(Batch(number, flow_run=change))
    return run_id


def keep_queued(kept: SqlStore, tasks: int) -> str:
    """A run that handled its failures: one task run each of some tasks never got a place."""
    run_id, number = open_run(kept, "waiting")
    late = [members(group, [0], StateType.TIMED_OUT, attempts=0) for group in range(tasks)]
    for group, each in enumerate(late):
        each.reasons = {0: f"queue_timeout_seconds=2 passed: it needs licence_{group}=1"}
        each.handled = frozenset({0})
    groups = [GroupRow(group, f"wait_{group}", 0, 1) for group in range(tasks)]
    kept.commit(Batch(number, groups=groups, task_runs=late))
    close_run(kept, number, message=f"{tasks} failures handled")
    return run_id


def keep_nightly(kept: SqlStore, size: int = 3) -> str:
    """A run that went well."""
    run_id, number = open_run(kept, "nightly")
    kept.commit(
        Batch(
            number,
            groups=[GroupRow(0, "parse", 0, size, mapped=True)],
            task_runs=[members(0, range(size), StateType.COMPLETED)],
        )
    )
    close_run(kept, number)
    return run_id


def keep_lost(*, sampled: bool = True, size: int = 3, executions: int = 1, traced: int = 0) -> str:
    """A run whose driver died, with task runs that had ended."""
    now = time.time_ns()
    row = FlowRunRow(
        "a" * 32,
        "nightly",
        "n",
        StateType.RUNNING,
        started=now,
        executions=(Execution(now, str(TraceParent(TRACE, sampled=sampled))),) * executions,
        traced=traced,
    )
    ended = members(0, range(size), StateType.COMPLETED)
    ended.started, ended.ended = [now] * size, [now + SECOND] * size
    kept = store()
    number = kept.open_run(row)
    parse = GroupRow(0, "parse", 0, size, mapped=True)
    kept.commit(Batch(number, groups=[parse], task_runs=[ended]))
    kept.close()
    return row.id
