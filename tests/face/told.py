"""What the hooks of transactions tell."""

from typing import Any

from raysched import Task, task


class Told:
    """What the hooks of its tasks were called with, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []

    def write(self, name: str) -> Task[[int], int]:
        """Return a task that says how it is committed or rolled back."""

        @task(name=name)
        def write(x: int) -> int:
            return x

        write.on_commit(lambda txn: self.calls.append(("commit", txn.key, txn.result())))
        write.on_rollback(lambda txn: self.calls.append(("rollback", txn.key, txn.result())))
        return write
