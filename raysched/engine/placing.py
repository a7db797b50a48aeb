"""What an attempt ran itself, as plain data on its way home, and its place in the flow run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from raysched.graph.builder import Builder
from raysched.model.ids import task_run_key
from raysched.model.rows import (
    AttemptRow,
    Batch,
    FlowRunRow,
    GroupRow,
    InputRow,
    PlaceRow,
    TaskRunColumns,
)


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
            for name in ("handled", "rolled_back"):
                columns[name] = sorted(columns[name])
            for name in ("indices", "states", "attempts", "started", "ended", "places"):
                columns[name] = list(columns[name])
    return data


def place(
    builder: Builder, data: Mapping[str, Any], own: Batch, parent_key: str, where: PlaceRow
) -> list[tuple[FlowRunRow, list[Batch]]]:
    """Fit what an attempt ran itself into its flow run.

    Args:
        builder: Of the flow run: it gives the groups their ids.
        data: What `AttemptContext.evidence` returned in the worker.
        own: A batch of the flow run, to which its part is added.
        parent_key: Key of the task run whose attempt it was.
        where: The place of that attempt in the flow run.

    Returns:
        Each flow run that was called, with its batches.
    """
    rows = _ROWS.validate_python(data)
    mine = [batch for batch in rows.batches if not batch.run]
    groups = [group for batch in mine for group in batch.groups]
    places = _Places(builder, groups, where.id)
    for batch in mine:
        own.groups += [places.group(group, parent_key) for group in batch.groups]
        own.units |= {places.ids[group]: units for group, units in batch.units.items()}
        own.task_runs += [places.columns(columns) for columns in batch.task_runs]
        own.attempts += [places.attempt(row) for row in batch.attempts]
        own.inputs += [places.input(row) for row in batch.inputs]
        own.logs += [replace(row, group=places.ids.get(row.group, -1)) for row in batch.logs]
    return [
        (
            replace(row, parent=row.parent or builder.run_id, parent_key=parent_key),
            [_placed(batch, where) for batch in rows.batches if batch.run == position],
        )
        for position, row in enumerate(rows.flow_runs, 1)
    ]


class _Places:
    """Where what an attempt ran itself is in its flow run.

    Attributes:
        ids: Their ids there, by those in the attempt.
    """

    def __init__(self, builder: Builder, groups: Sequence[GroupRow], where: int) -> None:
        self.ids: dict[int, int] = {}
        self._where = where
        self._firsts: dict[int, int] = {}
        self._keys: dict[str, str] = {}
        for group in groups:
            self.ids[group.id], first = builder.reserve(group.task, group.size)
            self._firsts[group.id] = first
            for index in range(group.size):
                key = task_run_key(group.task, group.first + index)
                self._keys[key] = task_run_key(group.task, first + index)

    def group(self, row: GroupRow, parent_key: str) -> GroupRow:
        """Return the row of a group as it is there."""
        edges = [(self.ids[parent], *rest) for parent, *rest in json.loads(row.edges)]
        return replace(
            row,
            id=self.ids[row.id],
            first=self._firsts[row.id],
            edges=json.dumps(edges),
            parent_key=parent_key,
            plan=self._plan(row.plan),
        )

    def _plan(self, plan: str | None) -> str | None:
        if plan is None or "fused_behind" not in (planned := json.loads(plan)):
            return plan
        return json.dumps(planned | {"fused_behind": self.ids[planned["fused_behind"]]})

    def input(self, row: InputRow) -> InputRow:
        """Return the arguments of a failed task run as they are kept there."""
        slots = [(kind, self.ids[parent], *rest) for kind, parent, *rest in json.loads(row.slots)]
        return replace(row, group=self.ids[row.group], slots=json.dumps(slots))

    def columns(self, columns: TaskRunColumns) -> TaskRunColumns:
        """Return rows of task runs as they are there."""
        roots = {
            position: tuple(self._keys[key] for key in keys)
            for position, keys in columns.roots.items()
        }
        where = [place and self._where for place in columns.places]
        return replace(columns, group=self.ids[columns.group], roots=roots, places=where)

    def attempt(self, row: AttemptRow) -> AttemptRow:
        """Return the row of an attempt as it is there."""
        return replace(row, group=self.ids[row.group], place=row.place and self._where)


def _placed(batch: Batch, where: PlaceRow) -> Batch:
    """Return a batch of a flow run whose only place knows no more than its process."""
    return replace(batch, places=[replace(where, id=row.id) for row in batch.places])
