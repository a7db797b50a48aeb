"""What an attempt ran itself, as plain data on its way home, and its place in the flow run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from raysched.graph.builder import Builder
from raysched.model.rows import Batch, FlowRunRow, TaskRunColumns


@dataclass(slots=True)
class NestedRows:
    """What one attempt ran itself.

    Attributes:
        flow_runs: The flow runs that it called, in order; their number in the batches is their
            position here + 1.
        batches: All commits. Those of number 0 are of tasks that the attempt called.
    """

    flow_runs: list[FlowRunRow]
    batches: list[Batch]


_ROWS = TypeAdapter(NestedRows)


def plain(rows: NestedRows) -> Mapping[str, Any]:
    """Return rows as data that msgpack knows."""
    data = asdict(rows)
    for batch in data["batches"]:
        for columns in batch["task_runs"]:
            columns["handled"] = sorted(columns["handled"])
    return data


def place(
    builder: Builder, data: Mapping[str, Any], number: int, parent_key: str
) -> tuple[Batch, list[tuple[FlowRunRow, list[Batch]]]]:
    """Fit what an attempt ran itself into its flow run.

    Args:
        builder: Of the flow run: it gives the groups their ids.
        data: What `AttemptContext.evidence` returned in the worker.
        number: Number of the flow run.
        parent_key: Key of the task run whose attempt it was.

    Returns:
        A batch of the flow run, and each flow run that was called with its batches.
    """
    rows = _ROWS.validate_python(data)
    own = Batch(number)
    ids: dict[int, int] = {}
    for batch in rows.batches:
        if batch.run:
            continue
        for group in batch.groups:
            ids[group.id], first = builder.reserve(group.task, group.size)
            own.groups.append(replace(group, id=ids[group.id], first=first, parent_key=parent_key))
        own.task_runs += [_renumbered(columns, ids) for columns in batch.task_runs]
        own.attempts += [replace(row, group=ids[row.group]) for row in batch.attempts]
        own.logs += [replace(row, group=ids.get(row.group, -1)) for row in batch.logs]
    called = [
        (
            replace(row, parent=row.parent or builder.run_id, parent_key=parent_key),
            [batch for batch in rows.batches if batch.run == position],
        )
        for position, row in enumerate(rows.flow_runs, 1)
    ]
    return own, called


def _renumbered(columns: TaskRunColumns, ids: Mapping[int, int]) -> TaskRunColumns:
    columns.group = ids[columns.group]
    return columns
