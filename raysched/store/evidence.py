"""Looking at what is known about failures: attempts, log records, arguments, fingerprints."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, false, func, or_, select

from raysched.model.ids import task_run_key
from raysched.model.rows import AttemptRow, GroupRow, InputRow
from raysched.model.states import StateType
from raysched.store.rows import attempt, task_input
from raysched.store.snapshots import Snapshots
from raysched.store.tables import ATTEMPT, FLOW_RUN, LOG, TASK_GROUP, TASK_INPUT, TASK_RUN
from raysched.store.task_runs import read_groups
from raysched.store.views import CrashView, LogView, RemarkView, RunView, SeenView

SHARED = -1
"""Position of the row with the arguments that all members of a group have in common."""


class EvidenceReader(Snapshots):
    """What a `Reader` tells about failures. Nothing is unpickled."""

    def attempts(
        self,
        run: RunView,
        group: int | None = None,
        index: int | Collection[int] | None = None,
    ) -> list[AttemptRow]:
        """Return the attempts worth a row: those that failed and those that followed a failure.

        Args:
            run: The run.
            group: Only of this group.
            index: Only of the member at this position in its group, or of those at these.
        """
        query = select(ATTEMPT).where(ATTEMPT.c.run == run.number)
        if group is not None:
            query = query.where(ATTEMPT.c.grp == group)
        if index is not None:
            members = [index] if isinstance(index, int) else list(index)
            query = query.where(ATTEMPT.c.idx.in_(members))
        query = query.order_by(ATTEMPT.c.grp, ATTEMPT.c.idx, ATTEMPT.c.attempt)
        with self._reading() as connection:
            return [attempt(row) for row in connection.execute(query).mappings()]

    def seen(self, fingerprint: str) -> SeenView | None:
        """Return when and how often attempts of any run failed with a fingerprint, or None."""
        counted = select(
            func.count(),
            func.count(ATTEMPT.c.run.distinct()),
            func.min(ATTEMPT.c.started),
            func.max(ATTEMPT.c.started),
        ).where(ATTEMPT.c.error_fingerprint == fingerprint)
        with self._reading() as connection:
            attempts, runs, first, last = connection.execute(counted).one()
            if not attempts:
                return None
            found = {
                row.started: row.id
                for row in connection.execute(_runs_of(fingerprint, first, last))
            }
        return SeenView(first, found[first], last, found[last], attempts, runs)

    def crashes(self, since: int, until: int, *, limit: int = 100) -> list[CrashView]:
        """Return attempts of any run that crashed in a span of time, in order of their ends.

        Args:
            since: Beginning of the span (ns since the epoch).
            until: Its end (ns since the epoch).
            limit: At most so many, the last ones.
        """
        query = (
            select(
                ATTEMPT,
                FLOW_RUN.c.id.label("run_id"),
                FLOW_RUN.c.flow,
                TASK_GROUP.c.task,
                TASK_GROUP.c.first,
            )
            .join(FLOW_RUN, FLOW_RUN.c.number == ATTEMPT.c.run)
            .join(
                TASK_GROUP,
                (TASK_GROUP.c.run == ATTEMPT.c.run) & (TASK_GROUP.c.id == ATTEMPT.c.grp),
            )
            .where(
                # Only runs that were open then, so that not all attempts are looked at.
                FLOW_RUN.c.started <= until,
                (FLOW_RUN.c.ended == 0) | (FLOW_RUN.c.ended >= since),
                ATTEMPT.c.state == int(StateType.CRASHED),
                ATTEMPT.c.ended.between(since, until),
            )
            .order_by(ATTEMPT.c.ended.desc())
            .limit(limit)
        )
        with self._reading() as connection:
            found = connection.execute(query).mappings().all()
        return [
            CrashView(
                row["run_id"],
                row["flow"],
                task_run_key(row["task"], row["first"] + row["idx"]),
                attempt(row),
            )
            for row in reversed(found)
        ]

    def inputs(self, run: RunView, group: int, index: int) -> tuple[InputRow | None, InputRow]:
        """Return the kept arguments of a member, None where they are not kept, and its group's.

        The second has an empty payload where the members have none in common.
        """
        query = select(TASK_INPUT).where(
            TASK_INPUT.c.run == run.number,
            TASK_INPUT.c.grp == group,
            TASK_INPUT.c.idx.in_([SHARED, index]),
        )
        with self._reading() as connection:
            found = {row.idx: task_input(row) for row in connection.execute(query)}
        return found.get(index), found.get(SHARED, InputRow(group, SHARED, b""))

    def remarks(self, run: RunView) -> list[RemarkView]:
        """Return what is to be told of members beside their states, in order of calls."""
        alike = (
            TASK_GROUP.c.task,
            TASK_RUN.c.state,
            TASK_RUN.c.reason,
            TASK_RUN.c.handled,
            TASK_RUN.c.rolled_back,
        )
        of_group = and_(TASK_GROUP.c.run == TASK_RUN.c.run, TASK_GROUP.c.id == TASK_RUN.c.grp)
        query = (
            select(*alike, func.count())
            .select_from(TASK_RUN.join(TASK_GROUP, of_group))
            .where(
                TASK_RUN.c.run == run.number,
                or_(TASK_RUN.c.reason.is_not(None), TASK_RUN.c.rolled_back.is_not(None)),
            )
            .group_by(*alike)
            .order_by(func.min(TASK_RUN.c.grp), func.min(TASK_RUN.c.idx))
        )
        with self._reading() as connection:
            return [
                RemarkView(
                    task, StateType(code), count, reason or "", bool(handled), bool(rolled_back)
                )
                for task, code, reason, handled, rolled_back, count in connection.execute(query)
            ]

    def logs(  # noqa: PLR0913 - the filters, each once
        self,
        run: RunView,
        *,
        after: int = 0,
        task: str | None = None,
        index: int | None = None,
        logger: str | None = None,
        limit: int | None = None,
    ) -> list[LogView]:
        """Return log records in the order of their commits.

        Args:
            run: The run.
            after: Only records with a larger id: the last one seen, to follow a run.
            task: Only those of that task.
            index: Only those of the task run at that position among those of `task`.
            logger: Only those of that logger.
            limit: At most so many.
        """
        query = select(LOG).where(LOG.c.run == run.number, LOG.c.id > after).order_by(LOG.c.id)
        if logger is not None:
            query = query.where(LOG.c.logger == logger)
        with self._reading() as connection:
            groups = {row.id: row for row in read_groups(connection, run.number)}
            if task is not None:
                of_task = [row for row in groups.values() if row.task == task]
                query = query.where(_of_task(of_task, index))
            return [
                log_view(row, groups.get(row.grp)) for row in connection.execute(query.limit(limit))
            ]

    def last_logs(self, run: RunView, group: int, index: int, limit: int) -> list[LogView]:
        """Return the last log records of a member of a group, in order, at most so many."""
        of_member = select(LOG).where(LOG.c.grp == group, LOG.c.idx == index)
        return self._last_logs(run, of_member, limit)

    def logs_between(
        self, run: RunView, since: int, until: int, *, logger: str, limit: int = 100
    ) -> list[LogView]:
        """Return the log records of a logger in a span of time, in order.

        Args:
            run: The run.
            since: Beginning of the span (ns since the epoch).
            until: Its end (ns since the epoch).
            logger: Name of the logger: `ENGINE_LOGGER` is what raysched itself says.
            limit: At most so many, the last ones.
        """
        said = select(LOG).where(LOG.c.logger == logger, LOG.c.at.between(since, until))
        return self._last_logs(run, said, limit)

    def _last_logs(self, run: RunView, query: Select[Any], limit: int) -> list[LogView]:
        query = query.where(LOG.c.run == run.number).order_by(LOG.c.id.desc()).limit(limit)
        with self._reading() as connection:
            groups = {row.id: row for row in read_groups(connection, run.number)}
            found = connection.execute(query).all()
        return [log_view(row, groups.get(row.grp)) for row in reversed(found)]


def log_view(row: Row[Any], group: GroupRow | None) -> LogView:
    """Return a record; `group` is None for one of the flow function."""
    task = group.task if group is not None else ""
    key = task_run_key(task, group.first + row.idx) if group is not None else ""
    return LogView(row.id, key, task, row.attempt, row.at, row.level, row.logger, row.message)


def _of_task(groups: Sequence[GroupRow], index: int | None) -> ColumnElement[bool]:
    """Return the condition of log records of the groups of a task, or of one of its task runs."""
    if index is None:
        return LOG.c.grp.in_([group.id for group in groups])
    places = [
        and_(LOG.c.grp == group.id, LOG.c.idx == index - group.first)
        for group in groups
        if group.first <= index < group.first + group.size
    ]
    return or_(false(), *places)


def _runs_of(fingerprint: str, *moments: int) -> Select[Any]:
    return (
        select(ATTEMPT.c.started, FLOW_RUN.c.id)
        .join(FLOW_RUN, FLOW_RUN.c.number == ATTEMPT.c.run)
        .where(ATTEMPT.c.error_fingerprint == fingerprint, ATTEMPT.c.started.in_(moments))
        .order_by(FLOW_RUN.c.number.desc())
    )
