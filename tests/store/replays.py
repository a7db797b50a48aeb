"""What a replay tells, for people."""

from raysched.model.rows import AttemptRow, Batch, FlowRunRow
from raysched.model.states import StateType
from raysched.store.reader import Reader
from raysched.store.replay import replay

Told = list[tuple[FlowRunRow, Batch]]


def told(reader: Reader, run_id: str, *, logs: bool = True) -> Told:
    return list(replay(reader, reader.find_run(run_id), logs=logs))


def members(batches: Told) -> list[tuple[int, int, StateType, int, int]]:
    """Group, position, state, start and end of what was told, in order."""
    return [
        (part.group, index, StateType(state), start, end)
        for _, batch in batches
        for part in batch.task_runs
        for index, state, start, end in zip(
            part.indices, part.states, part.started, part.ended, strict=True
        )
    ]


def attempts(batches: Told) -> list[AttemptRow]:
    return [row for _, batch in batches for row in batch.attempts]
