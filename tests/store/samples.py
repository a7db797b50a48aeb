"""Runs and batches as the engine makes them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from sqlalchemy import create_engine, text

from raysched.model.ids import new_run_id
from raysched.model.rows import (
    Batch,
    Execution,
    FlowRunChange,
    FlowRunRow,
    GroupRow,
    LogRow,
    TaskRunColumns,
)
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, FailureClass

NOON = 1_700_000_000_000_000_000
"""Some moment (ns)."""

ERROR = ErrorInfo(
    "builtins.KeyError",
    "'price'",
    "Traceback (most recent call last):\n  …",
    FailureClass.USER,
    "",
    b"\x00pickled",
    "0123456789abcdef",
    {
        "signal": "SIGSEGV",
        "used_bytes": 2**40,
        "frames": [{"file": "é.py", "line": 3, "function": "load", "code": "x\0\n", "own": True}],
    },
)

_ticks = count(NOON)


def flow_run(**columns: object) -> FlowRunRow:
    row = FlowRunRow(
        id=new_run_id(), flow="nightly", name="quiet-owl", state=StateType.RUNNING, started=NOON
    )
    return replace(row, **columns)  # type: ignore[arg-type]


def task_runs(
    group: int, indices: Sequence[int], state: StateType = StateType.COMPLETED
) -> TaskRunColumns:
    """Columns of uneventful task runs."""
    length = len(indices)
    return TaskRunColumns(
        group,
        indices,
        bytearray([state]) * length,
        [1] * length,
        [NOON + index for index in indices],
        [NOON + index + 1_000_000 if state.is_terminal else 0 for index in indices],
        [None] * length,
        [0] * length,
    )


def identities(group: int, size: int) -> bytes:
    return b"".join(f"{group:08x}{index:08x}".encode() for index in range(size))


def resumed(earlier: Sequence[Execution]) -> Execution:
    """The execution of a resume, of which nothing is traced."""
    return Execution(NOON + len(earlier))


def log(message: str, group: int = 0, index: int = 0) -> LogRow:
    return LogRow(group, index, 1, next(_ticks), 20, "flow", message)


def closing(run: int, state: StateType = StateType.COMPLETED) -> Batch:
    return Batch(run, flow_run=FlowRunChange(state, ended=NOON + 9))


def group(number: int = 0, size: int = 10, task: str = "parse", first: int = 0) -> GroupRow:
    return GroupRow(number, task, first, size)


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Do to the database what no part of raysched does."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return rows
