"""How many task runs are in which state."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from raysched.model.states import StateType
from raysched.store.tables import TASK_GROUP, TASK_RUN


def count_states(connection: Connection, runs: Sequence[int]) -> dict[int, dict[int, int]]:
    """Return for each of these runs `{state code: task runs}`, without empty states.

    Members of groups that have no row yet count as SCHEDULED.
    """
    counts: dict[int, dict[int, int]] = {run: {} for run in runs}
    states = (
        select(TASK_RUN.c.run, TASK_RUN.c.state, func.count())
        .where(TASK_RUN.c.run.in_(runs))
        .group_by(TASK_RUN.c.run, TASK_RUN.c.state)
    )
    for run, state, count in connection.execute(states):
        counts[run][state] = count
    sizes = (
        select(TASK_GROUP.c.run, func.sum(TASK_GROUP.c.size))
        .where(TASK_GROUP.c.run.in_(runs))
        .group_by(TASK_GROUP.c.run)
    )
    for run, size in connection.execute(sizes):
        without_row = int(size) - sum(counts[run].values())
        if without_row > 0:
            scheduled = int(StateType.SCHEDULED)
            counts[run][scheduled] = counts[run].get(scheduled, 0) + without_row
    return counts


def count_states_by_group(connection: Connection, run: int) -> dict[int, dict[int, int]]:
    """Return by group `{state code: task runs}` of those members that have a row."""
    states = (
        select(TASK_RUN.c.grp, TASK_RUN.c.state, func.count())
        .where(TASK_RUN.c.run == run)
        .group_by(TASK_RUN.c.grp, TASK_RUN.c.state)
    )
    counts: dict[int, dict[int, int]] = {}
    for group, state, count in connection.execute(states):
        counts.setdefault(group, {})[state] = count
    return counts
