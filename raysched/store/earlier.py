"""What a run goes on from: its parameters, its result and the records of its task runs."""

from collections.abc import Iterator

from sqlalchemy import Column, Connection, and_, or_, select

from raysched.model.ids import task_run_key
from raysched.model.records import Records
from raysched.model.states import SUCCESSES, StateType
from raysched.store.records import read_records
from raysched.store.snapshots import Snapshots
from raysched.store.tables import DRIVER, FLOW_RUN, TASK_GROUP, TASK_RUN
from raysched.store.task_runs import read_values
from raysched.store.views import RunView, shown_state

NOT_TWICE = '"idempotent": false'
"""What tells in a group's options, which are JSON text, that its task must not run twice."""


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

    def may_have_run(self, run: RunView) -> list[tuple[str, StateType]]:
        """Return keys and states of the task runs that a resume needs a person's yes to repeat.

        Those of tasks that are declared as `idempotent=False` that were begun and did not complete,
        or were undone; `billing/pay[0]` in subflows that have not completed.
        """
        with self._reading() as connection:
            return [
                (key, shown_state(state, lost=run.lost))
                for key, state in _begun(connection, run.number, "")
            ]

    def _blob(self, run: RunView, column: Column[bytes]) -> bytes | None:
        with self._reading() as connection:
            kept: bytes | None = connection.execute(
                select(column).where(FLOW_RUN.c.number == run.number)
            ).scalar()
            return kept


def _begun(connection: Connection, run: int, prefix: str) -> Iterator[tuple[str, StateType]]:
    query = (
        select(TASK_GROUP.c.task, TASK_GROUP.c.first + TASK_RUN.c.idx, TASK_RUN.c.state)
        .join(TASK_RUN, and_(TASK_RUN.c.run == run, TASK_RUN.c.grp == TASK_GROUP.c.id))
        .where(
            TASK_GROUP.c.run == run,
            # What an attempt called itself runs again with it.
            TASK_GROUP.c.parent_key == "",
            TASK_GROUP.c.options.contains(NOT_TWICE, autoescape=True),
            TASK_RUN.c.attempts > 0,
            or_(TASK_RUN.c.state.not_in(map(int, SUCCESSES)), TASK_RUN.c.rolled_back.is_(True)),
        )
        .order_by(TASK_GROUP.c.id, TASK_RUN.c.idx)
    )
    for task, index, state in connection.execute(query):
        yield prefix + task_run_key(task, index), StateType(state)
    parent = select(FLOW_RUN.c.id).where(FLOW_RUN.c.number == run).scalar_subquery()
    children = (
        select(FLOW_RUN.c.number, FLOW_RUN.c.flow)
        .where(
            FLOW_RUN.c.parent == parent,
            FLOW_RUN.c.parent_key == "",
            FLOW_RUN.c.removed.is_(None),
            FLOW_RUN.c.state != int(StateType.COMPLETED),
        )
        .order_by(FLOW_RUN.c.number)
    )
    for number, flow in connection.execute(children).all():
        yield from _begun(connection, number, f"{prefix}{flow}/")
