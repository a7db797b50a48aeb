"""What the spans of a run tell beside its task runs, and which of them have been delivered."""

import json

from sqlalchemy import Connection, Select, Table, func, select, update

from raysched.model.events import EventKind
from raysched.model.rows import PlaceRow
from raysched.store import schema
from raysched.store.database import Database
from raysched.store.rows import executions, executions_in
from raysched.store.snapshots import Snapshots
from raysched.store.tables import ATTEMPT, ENDED, EVENT, FLOW_RUN, LOG, PLACE, TASK_RUN
from raysched.store.views import EventView, RunView


class TraceReader(Snapshots):
    """What a `Reader` tells about the cluster under a run."""

    def places(self, run: RunView) -> dict[int, PlaceRow]:
        """Return the worker processes in which its task runs have run, by id."""
        with self._reading() as connection:
            return {row.id: row for row in read_places(connection, run.number)}

    def events(self, run: RunView, *, after: int = 0, limit: int | None = None) -> list[EventView]:
        """Return what happened to the cluster while a run was open, in the order of commits.

        Args:
            run: The run.
            after: Only events with a larger id: the last one seen, to follow a run.
            limit: At most so many.
        """
        query = select(EVENT).where(EVENT.c.run == run.number, EVENT.c.id > after)
        with self._reading() as connection:
            found = connection.execute(query.order_by(EVENT.c.id).limit(limit))
            return [
                EventView(
                    EventKind(row.kind), row.at, row.message, json.loads(row.attributes), row.id
                )
                for row in found
            ]


class Traces:
    """Where a process notes which executions' spans a collector has taken, whoever owns the run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def delivered(self, run_id: str, count: int) -> None:
        """Note that the spans of a flow run's first executions have all been delivered.

        What is noted never gets less, and nothing is where the run is not there any more.

        Args:
            run_id: Id of the flow run.
            count: How many executions, counted from the first.

        Raises:
            StoreUnavailable: It cannot be written now.
            StoreVersionError: The schema is another than this raysched's.
        """
        query = select(FLOW_RUN.c.executions, FLOW_RUN.c.traced).where(FLOW_RUN.c.id == run_id)
        self._database.prepare()
        with self._database.writing() as connection:
            if not schema.check(self._database, connection):
                return
            found = connection.execute(query.with_for_update()).one_or_none()
            if found is None or found.traced >= count:
                return
            noted = executions(executions_in(found.executions), count)
            connection.execute(update(FLOW_RUN).where(FLOW_RUN.c.id == run_id).values(noted))


def read_places(connection: Connection, run: int) -> list[PlaceRow]:
    """Return the places of a run, by id."""
    query = select(PLACE).where(PLACE.c.run == run).order_by(PLACE.c.id)
    return [
        PlaceRow(row.id, row.node_id, row.worker_id, row.pid, row.host)
        for row in connection.execute(query)
    ]


def last_told(connection: Connection, run: int) -> int:
    """Return the last moment of which a flow run tells (ns): its driver was alive then.

    Args:
        connection: Of a transaction.
        run: Number of the flow run.
    """
    told = [
        select(func.max(ENDED)).where(TASK_RUN.c.run == run),
        select(func.max(ATTEMPT.c.ended)).where(ATTEMPT.c.run == run),
        _last(LOG, run),
        _last(EVENT, run),
    ]
    query = select(FLOW_RUN.c.started, FLOW_RUN.c.executions).where(FLOW_RUN.c.number == run)
    opened = connection.execute(query).one()
    begun = (each.started for each in executions_in(opened.executions))
    times = (connection.execute(each).scalar() or 0 for each in told)
    return int(max(opened.started, *begun, *times))


def _last(table: Table, run: int) -> Select[tuple[int]]:
    # Its key leads there, and to the last one that was committed.
    return select(table.c.at).where(table.c.run == run).order_by(table.c.id.desc()).limit(1)
