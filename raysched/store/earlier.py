"""What a run goes on from: its parameters, its result and the records of its task runs."""

from sqlalchemy import Column, select

from raysched.model.records import Records
from raysched.store.records import read_records
from raysched.store.snapshots import Snapshots
from raysched.store.tables import DRIVER, FLOW_RUN
from raysched.store.task_runs import read_values
from raysched.store.views import RunView


class EarlierReader(Snapshots):
    """Reads what another execution may go on from."""

    def pickled_parameters(self, run: RunView) -> bytes | None:
        """Return the envelope of a run's parameters, or None where they were not kept."""
        return self._blob(run, FLOW_RUN.c.pickled_parameters)

    def result(self, run: RunView) -> bytes | None:
        """Return the envelope of what a run's flow function returned, or None if it is not kept."""
        return self._blob(run, FLOW_RUN.c.result)

    def owner(self, run: RunView) -> str:
        """Return which process has worked on a run last, for people: `process 4711 on ant`."""
        query = select(DRIVER.c.pid, DRIVER.c.host).join(FLOW_RUN)
        with self._reading() as connection:
            pid, host = connection.execute(query.where(FLOW_RUN.c.number == run.number)).one()
        return f"process {pid} on {host}"

    def kept_values(self, run: RunView, group: int, start: int, stop: int) -> dict[int, bytes]:
        """Return the envelopes in the database of members of a group, by position."""
        with self._reading() as connection:
            return read_values(connection, run.number, group, start, stop)

    def records(self, run: RunView) -> Records:
        """Return what became of the task runs of a run, in columns."""
        with self._reading() as connection:
            return read_records(connection, run.number)

    def _blob(self, run: RunView, column: Column[bytes]) -> bytes | None:
        with self._reading() as connection:
            kept: bytes | None = connection.execute(
                select(column).where(FLOW_RUN.c.number == run.number)
            ).scalar()
            return kept
