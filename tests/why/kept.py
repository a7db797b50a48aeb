"""Runs that end as no flow ends inline: written as the engine writes them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cli.kept_runs import NOON, SECOND, close_run, members, open_run, store
from raysched import StateType, get_run
from raysched.client import Run
from raysched.model.rows import (
    ENGINE_LOGGER,
    AttemptRow,
    Batch,
    FlowRunChange,
    GroupRow,
    LogRow,
)
from raysched.model.values import ErrorInfo, Evidence, FailureClass, Frame

ENDED = NOON + SECOND // 4
"""When `members` ended (ns)."""


def crash(kind: str, evidence: Evidence | None = None, message: str = "it broke") -> ErrorInfo:
    return ErrorInfo(
        "raysched.errors.TaskRunCrashed",
        message,
        "",
        FailureClass.INFRASTRUCTURE,
        kind,
        None,
        kind.encode().hex()[:16],
        evidence or Evidence(),
    )


def keep_crashed(
    error: ErrorInfo,
    *,
    flow: str = "training",
    options: Mapping[str, Any] | None = None,
    state: StateType = StateType.CRASHED,
    logs: Iterable[LogRow] = (),
) -> Run:
    """A run of which one task run crashed, and another one could not run because."""
    kept = store()
    run_id, number = open_run(kept, flow, parameters='{"epochs": 3}')
    row = AttemptRow(0, 0, 1, state, NOON, ENDED, error, "no retries")
    batch = Batch(
        number,
        groups=[
            GroupRow(0, "train", 0, 1, options=json.dumps(dict(options or {}))),
            GroupRow(1, "rate", 0, 1, edges='[[0, "broadcast", 0, 1]]'),
        ],
        task_runs=[
            members(0, [0], state),
            members(1, [0], StateType.UPSTREAM_FAILED, attempts=0, roots={0: ("train[0]",)}),
        ],
        attempts=[row],
        logs=list(logs),
    )
    kept.commit(batch)
    close_run(kept, number, StateType.FAILED, "1 task run failed: train[0]")
    kept.close()
    return get_run(run_id)


def keep_equal_failures(count: int, kinds: int = 1) -> Run:
    """A map of which every member failed, in so many ways, and another one that only followed."""
    kept = store()
    run_id, number = open_run(kept, "big")
    groups = [
        GroupRow(0, "parse", 0, count, mapped=True),
        GroupRow(1, "rate", 0, count, mapped=True, edges='[[0, "one_to_one", 0, 1]]'),
    ]
    kept.commit(Batch(number, groups=groups))
    for start in range(0, count, 10_000):
        part = range(start, min(start + 10_000, count))
        kept.commit(_failures(number, part, kinds))
    close_run(kept, number, StateType.FAILED, f"{count} task runs failed")
    kept.close()
    return get_run(run_id)


def _failures(number: int, part: Sequence[int], kinds: int) -> Batch:
    roots = {place: (f"parse[{index}]",) for place, index in enumerate(part)}
    return Batch(
        number,
        task_runs=[
            members(0, part, StateType.FAILED),
            members(1, part, StateType.UPSTREAM_FAILED, attempts=0, roots=roots),
        ],
        attempts=[
            AttemptRow(
                0,
                index,
                1,
                StateType.FAILED,
                NOON,
                ENDED,
                ErrorInfo(
                    "builtins.ValueError",
                    f"bad row {index}",
                    "Traceback (most recent call last):\n" + "  a line of it\n" * 20,
                    fingerprint=f"{index % kinds:016x}",
                ),
                "no retries",
            )
            for index in part
        ],
    )


def keep_cancelled(before: ErrorInfo | None = None) -> Run:
    """A run that was cancelled while two members of a map were under way, and three waited.

    With an error the first one had failed with it, and waited for its next attempt. A worker had
    two of those that waited, and told only of one that it had not begun.
    """
    kept = store()
    run_id, number = open_run(kept, "training")
    columns = members(0, range(5), StateType.CANCELLED, attempts=0)
    columns.attempts = [1, 1, 0, 1, 1]
    columns.started = [NOON + SECOND, NOON, 0, 0, NOON + 2 * SECOND]
    columns.ended = [NOON + 2 * SECOND] * 5
    columns.reasons = dict.fromkeys(range(2, 5), "cancelled by Ctrl-C")
    error = ErrorInfo(
        "raysched.errors.TaskRunCancelled",
        "cancelled by Ctrl-C",
        failure_class=FailureClass.CANCELLED,
        evidence=Evidence(frames=[frame(7, "train", "step()")]),
    )
    attempts = [
        AttemptRow(0, index, 1, StateType.CANCELLED, start, NOON + 2 * SECOND, each, "cancelled")
        for index, (start, each) in enumerate(((NOON + SECOND, before or error), (NOON, error)))
    ]
    groups = [GroupRow(0, "train", 0, 5, mapped=True)]
    kept.commit(Batch(number, groups=groups, task_runs=[columns], attempts=attempts))
    place = frame(30, "training", "train.map(range(5)).wait()")
    change = FlowRunChange(
        StateType.CANCELLED,
        "cancelled by Ctrl-C",
        NOON + 3 * SECOND,
        ErrorInfo("builtins.KeyboardInterrupt", "", evidence=Evidence(frames=[place])),
    )
    kept.commit(Batch(number, flow_run=change))
    kept.close()
    return get_run(run_id)


def keep_lost_between_attempts() -> Run:
    """A run whose driver died when two of four members of a map waited for a retry.

    The second of these was queued for it; of one the second attempt was under way; one had failed.
    """
    kept = store()
    run_id, number = open_run(kept, "nightly")
    down = ErrorInfo("shop.SourceDown", "503", fingerprint="f" * 16)
    waiting = members(0, [0], StateType.AWAITING_RETRY)
    waiting.reasons = {0: "next attempt at 2026-11-20T12:00:09+00:00"}
    kept.commit(
        Batch(
            number,
            groups=[GroupRow(0, "fetch", 0, 6, mapped=True)],
            task_runs=[
                waiting,
                members(0, [1], StateType.PENDING),
                members(0, [2], StateType.RUNNING, attempts=2),
                members(0, [3], StateType.FAILED),
            ],
            attempts=[
                AttemptRow(0, index, 1, StateType.FAILED, NOON, ENDED, down, "tried out")
                for index in range(4)
            ],
            logs=[LogRow(-1, 0, 1, NOON + SECOND, 30, ENGINE_LOGGER, "the disk is nearly full")],
        )
    )
    kept.close()
    return get_run(run_id)


def frame(line: int, function: str, code: str) -> Frame:
    return Frame(file="shop.py", line=line, function=function, code=code, own=True)
