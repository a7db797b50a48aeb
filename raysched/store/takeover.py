"""How a process gets a flow run that another one has left."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, and_, insert, literal, select, update

from raysched.errors import RunOwned
from raysched.model.records import Takeover
from raysched.model.rows import Execution, FlowRunRow
from raysched.model.states import FIRST_TERMINAL, StateType
from raysched.store import rows
from raysched.store.database import Database
from raysched.store.records import find_run
from raysched.store.tables import ATTEMPT, DRIVER, FLOW_RUN, TASK_RUN
from raysched.store.traces import last_told
from raysched.store.views import DRIVER_LOST, ON_THEIR_WAY


@dataclass(slots=True)
class Taker:
    """A driver that takes a flow run over, in a transaction that writes.

    Attributes:
        database: The database.
        connection: Of the transaction.
        driver: Number of the driver.
        working: Numbers of the flow runs that it is working on.
    """

    database: Database
    connection: Connection
    driver: int
    working: Collection[int]

    def take(self, run_id: str, execution: Callable[[Sequence[Execution]], Execution]) -> Takeover:
        """Take a flow run over: see `engine.ports.Store.take_over`."""
        # Alone, because a row that is joined to one that waits for its lock may be outdated.
        row = find_run(self.connection, run_id, locked=True)
        number = row["number"]
        if row["state"] < FIRST_TERMINAL:
            if row["driver"] == self.driver and number not in self.working:
                # The answer to an earlier try got lost.
                return Takeover(number, _flow_run(row))
            self._refuse_owned(row)
        self._end_attempts(number)
        earlier = rows.executions_in(row["executions"])
        executions = (*earlier, execution(earlier))
        taken = {
            "driver": self.driver,
            "epoch": row["epoch"] + 1,
            "attempts": row["attempts"] + 1,
            "state": int(StateType.RUNNING),
            "message": "",
            "ended": 0,
            "counts": None,
            "result": None,
            **rows.executions(executions, row["traced"]),
            **rows.error_dict(None),
        }
        self.connection.execute(update(FLOW_RUN).where(FLOW_RUN.c.number == number).values(taken))
        return Takeover(number, _flow_run(find_run(self.connection, run_id)))

    def _refuse_owned(self, row: RowMapping) -> None:
        query = select(DRIVER).where(DRIVER.c.number == row["driver"])
        owner = self.connection.execute(query).one()
        if owner.id in self.database.living([owner.id]):
            raise RunOwned(
                f"run {row['id']}: process {owner.pid} on {owner.host} is working on it; wait for "
                "its end, or end that process (`raysched cancel` ends the run)"
            )

    def _end_attempts(self, number: int) -> None:
        """Write what readers derived: that attempts on their way have crashed with their driver.

        When, is not known; it was not before the last thing that the run tells of.
        """
        last = last_told(self.connection, number)
        lost = and_(
            TASK_RUN.c.run == number,
            TASK_RUN.c.state.in_([int(state) for state in ON_THEIR_WAY]),
            TASK_RUN.c.attempts > 0,
        )
        crashed = int(StateType.CRASHED)
        known = and_(
            ATTEMPT.c.run == TASK_RUN.c.run,
            ATTEMPT.c.grp == TASK_RUN.c.grp,
            ATTEMPT.c.idx == TASK_RUN.c.idx,
            ATTEMPT.c.attempt == TASK_RUN.c.attempts,
        )
        values = {
            "run": TASK_RUN.c.run,
            "grp": TASK_RUN.c.grp,
            "idx": TASK_RUN.c.idx,
            "attempt": TASK_RUN.c.attempts,
            "state": literal(crashed),
            "started": TASK_RUN.c.started,
            "ended": literal(last),
            "stop_reason": literal(""),
            "place": TASK_RUN.c.place,
            **{
                name: literal(value)
                for name, value in rows.error_dict(DRIVER_LOST).items()
                if value is not None
            },
        }
        attempts = select(*values.values()).outerjoin(ATTEMPT, known)
        attempts = attempts.where(lost, ATTEMPT.c.run.is_(None))
        self.connection.execute(insert(ATTEMPT).from_select(list(values), attempts))
        ended = {"state": crashed, "duration": last - TASK_RUN.c.started}
        self.connection.execute(update(TASK_RUN).where(lost).values(ended))


def _flow_run(row: RowMapping) -> FlowRunRow:
    return FlowRunRow(**rows.plain_flow_run(row), pickled_parameters=row["pickled_parameters"])
