"""What other processes ask of the driver of a run: rows that it reads about once a second."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, func, insert, select

from raysched.errors import RunNotFound
from raysched.model.rows import RequestRow
from raysched.store import schema
from raysched.store.database import Database
from raysched.store.rows import request, request_values
from raysched.store.tables import FLOW_RUN, REQUEST


def read_requests(connection: Connection, run: int, after: int = 0) -> list[RequestRow]:
    """Return the requests of a run with an id over `after`, in order."""
    query = select(REQUEST).where(REQUEST.c.run == run, REQUEST.c.id > after)
    return [request(row) for row in connection.execute(query.order_by(REQUEST.c.id))]


def read_cancellations(connection: Connection, runs: Sequence[int]) -> dict[int, str]:
    """Return of those of these runs that are asked to be cancelled as a whole who asked first."""
    query = select(REQUEST.c.run, REQUEST.c.asked_by).where(
        REQUEST.c.run.in_(runs), REQUEST.c["keys"] == json.dumps(())
    )
    asked = connection.execute(query.order_by(REQUEST.c.run, REQUEST.c.id.desc()))
    return {run: by for run, by in asked}  # noqa: C416 - rows are tuples, which mypy does not see


class Requests:
    """Where a process that does not own a run asks something of the one that does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, run: int, kind: str, by: str, keys: Sequence[str] = ()) -> RequestRow:
        """Insert a request; it is durable when this returns.

        Args:
            run: Number of the flow run.
            kind: `cancel` or `kill`: see `RequestRow`.
            by: Who asks, for people.
            keys: Keys of the task runs that are meant, none for the whole run.

        Raises:
            RunNotFound: There is no such run.
            StoreUnavailable: It cannot be written now.
            StoreVersionError: The schema is another than this raysched's.
        """
        wanted = RequestRow(0, kind, by, time.time_ns(), tuple(keys))
        # The run's row is locked, so that requests arrive in the order of their numbers, and a
        # driver that has seen one does not miss another that comes after it.
        number = (
            select(FLOW_RUN.c.number)
            .where(FLOW_RUN.c.number == run, FLOW_RUN.c.removed.is_(None))
            .with_for_update()
        )
        self._database.prepare()
        with self._database.writing() as connection:
            if (
                not schema.check(self._database, connection)
                or connection.execute(number).scalar() is None
            ):
                raise RunNotFound(f"{self._database.name}: there is no run with the number {run}")
            last = select(func.max(REQUEST.c.id)).where(REQUEST.c.run == run)
            row = replace(wanted, id=(connection.execute(last).scalar() or 0) + 1)
            connection.execute(insert(REQUEST).values(request_values(run, row)))
        return row
