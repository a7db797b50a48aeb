"""What the engine has committed, transaction by transaction."""

from collections.abc import Iterator

from raysched.model.rows import AttemptRow, Batch, FlowRunRow, InputRow
from raysched.model.states import StateType


class Committed:
    """An observer that keeps the batches of all flow runs."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def __call__(self, run: FlowRunRow, batch: Batch) -> None:
        """See `Observer`."""
        del run
        self.batches.append(batch)

    def tasks(self) -> dict[tuple[int, int], str]:
        """Return the name of the task of each group, by number of the flow run and group."""
        return {(batch.run, row.id): row.task for batch in self.batches for row in batch.groups}

    def rows(self, batch: Batch) -> Iterator[tuple[str, int, StateType, bool]]:
        """Yield task, position, state of each task run in a batch, and if it was rolled back."""
        names = self.tasks()
        for columns in batch.task_runs:
            name = names[batch.run, columns.group]
            for place, index in enumerate(columns.indices):
                state = StateType(columns.states[place])
                yield name, index, state, place in columns.rolled_back

    def batch_with(self, task: str, index: int, state: StateType) -> Batch:
        """Return the first batch that tells that a task run is in this state."""
        return next(
            batch
            for batch in self.batches
            if (task, index, state) in {row[:3] for row in self.rows(batch)}
        )

    def attempts(self) -> list[AttemptRow]:
        """Return the rows of attempts."""
        return [row for batch in self.batches for row in batch.attempts]

    def inputs(self) -> list[InputRow]:
        """Return the rows of arguments of task runs that failed."""
        return [row for batch in self.batches for row in batch.inputs]
