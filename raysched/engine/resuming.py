"""Going on from an earlier execution: what answers calls, and what nobody called again."""

import logging
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

from raysched.define.ports import FlowRunStart
from raysched.engine.keeping import Keeper
from raysched.engine.recording import publish, source_of
from raysched.graph.group import Group
from raysched.graph.recorded import NAMED, Choice, Recorded
from raysched.model.ids import task_run_key
from raysched.model.records import RecordedGroup
from raysched.model.rows import TaskRunColumns
from raysched.model.states import FAILURES, FIRST_TERMINAL, SUCCESSES, StateType
from raysched.tracker.messages import Record

if TYPE_CHECKING:
    from raysched.engine.flow_run import OpenFlowRun

PAGE = 10_000
"""Members whose values are read at once, to be copied into a new flow run."""

NOT_CALLED = "not called again when the flow run went on"
"""Why a recorded task run ended that is not in this execution."""


def recorded_of(keeper: Keeper, start: FlowRunStart, number: int) -> Recorded | None:
    """Return what a flow run goes on from, or None for one that begins.

    Args:
        keeper: Where it is kept.
        start: What is being opened.
        number: The flow run's number, for one that goes on itself.

    Raises:
        RunNotFound: There is no run of which it could reuse anything.
        StoreUnavailable: The store stayed away.
    """
    continues = start.continues
    if continues is None:
        return None
    choice = Choice(
        continues.same,
        cache(source_of),
        continues.rerun_changed,
        frozenset(continues.again),
        continues.confirmed,
    )
    run = number if continues.same else keeper.number_of(continues.run_id)
    return Recorded(keeper.records(run), choice)


def answer(run: "OpenFlowRun", groups: Sequence[Group], keeper: Keeper) -> bool:
    """Let members that are answered be seen; return whether there are any. Within a turn.

    Those of the run itself are committed. Another run's results become its own first.
    """
    any_answered = False
    for group in groups:
        _restart(run, group)
        for indices in _ranges(group.answered):
            any_answered = True
            if group.continues:
                before = group.open_visible
                publish(group, indices)
                run.invisible -= before - group.open_visible
            else:
                _copy_values(run, group, indices, keeper)
                run.commands.append(Record(group, indices))
                run.host.touch(run)
    return any_answered


def _restart(run: "OpenFlowRun", group: Group) -> None:
    """Have the rows cleared of members that begin again in them."""
    recorded = group.recorded
    if recorded is None or not group.continues:
        return
    begun = [
        position
        for position, answered in zip(group.positions, group.answered, strict=True)
        if not answered and (recorded.states[position] or recorded.attempts[position])
    ]
    if begun:
        run.restarted.append((recorded.id, begun))
        run.host.touch(run)


def _ranges(flags: bytearray) -> Iterator[range]:
    """Yield where the flags are set, as ranges."""
    start = flags.find(1)
    while start >= 0:
        stop = flags.find(0, start)
        stop = len(flags) if stop < 0 else stop
        yield range(start, stop)
        start = flags.find(1, stop)


def _copy_values(run: "OpenFlowRun", group: Group, indices: range, keeper: Keeper) -> None:
    """Fetch the small values of another run's task runs."""
    recorded, records = group.recorded, run.builder.recorded
    assert recorded is not None  # noqa: S101 - its members are answered
    assert records is not None  # noqa: S101 - see above
    number = records.records.run
    for page in range(indices.start, indices.stop, PAGE):
        members = range(page, min(page + PAGE, indices.stop))
        positions = group.positions[members.start : members.stop]
        values = keeper.values(number, recorded.id, min(positions), max(positions) + 1)
        for index, position in zip(members, positions, strict=True):
            if group.values[index] is None:
                group.values[index] = values.get(position)


def leftovers(recorded: Recorded, *, completed: bool) -> Iterator[TaskRunColumns]:
    """Yield rows for recorded task runs of this flow run that are not in this execution.

    What was open ends, since nothing is left open. Once the flow function has come to its end,
    failures that it did not repeat are none of its own any more.

    Args:
        recorded: What was recorded.
        completed: Whether the flow run has completed.
    """
    if not recorded.choice.same:
        return
    for group, indices in recorded.left():
        still_open = [i for i in indices if group.states[i] < FIRST_TERMINAL]
        ended = StateType.SKIPPED if completed else StateType.CANCELLED
        if still_open:
            yield _rows(group, still_open, ended)
        failed = [i for i in indices if group.states[i] in FAILURES and i not in group.handled]
        for state, members in groupby(failed, key=lambda index: group.states[index]):
            if completed:
                yield _rows(group, list(members), StateType(state))


def _rows(group: RecordedGroup, indices: list[int], state: StateType) -> TaskRunColumns:
    size = len(indices)
    return TaskRunColumns(
        group.id,
        indices,
        [state] * size,
        [group.attempts[index] for index in indices],
        [group.started[index] for index in indices],
        [group.ended[index] or group.started[index] for index in indices],
        [None] * size,
        [0] * size,
        handled=frozenset(range(size)) if state in FAILURES else frozenset(),
        reasons=dict.fromkeys(range(size), NOT_CALLED),
    )


def notes(recorded: Recorded, *, completed: bool) -> Iterator[tuple[int, str]]:
    """Yield what there is to tell of how a flow run went on: level of logging, and text."""
    total = sum(state in SUCCESSES for group in recorded.records.groups for state in group.states)
    if total:
        yield logging.INFO, f"{recorded.reused} of {total} recorded results were reused"
    for task, number in recorded.changed.items():
        results = "1 result was" if number == 1 else f"{number} results were"
        changed = f"{task}: {results} made by code that has changed since, and reused"
        yield logging.WARNING, f"{changed}; --rerun-changed runs them again"
    if completed and recorded.choice.same:
        for task, keys in _diverged(recorded).items():
            yield logging.WARNING, _divergence(task, keys)


def _divergence(task: str, keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    were = "was" if len(keys) == 1 else "were"
    return (
        f"{', '.join(keys[:NAMED])}{more} completed before and {were} not called again: the flow "
        f"has gone another way. If {task} ran again, it was with other inputs; what it returned "
        "before is kept, and not used"
    )


def _diverged(recorded: Recorded) -> dict[str, list[str]]:
    """Return the keys of completed task runs that are not in this execution, by task."""
    keys: dict[str, list[str]] = {}
    for group, indices in recorded.left():
        done = [i for i in indices if group.states[i] in SUCCESSES and i not in group.rolled_back]
        if done and group.task not in recorded.undoing:
            known = keys.setdefault(group.task, [])
            known += [task_run_key(group.task, group.first + index) for index in done]
    return keys
