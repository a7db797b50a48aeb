"""Looking at runs: what the client, the command line and the web read. Nothing is unpickled."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, or_, select, true

from raysched.errors import RunNotFound
from raysched.model.rows import GroupRow
from raysched.model.states import FIRST_TERMINAL, StateType
from raysched.model.values import CrashKind
from raysched.store import task_runs
from raysched.store.cached import CacheReader
from raysched.store.counts import count_states, count_states_by_group
from raysched.store.earlier import EarlierReader
from raysched.store.endings import EndingsReader
from raysched.store.evidence import EvidenceReader
from raysched.store.replay import ReplayReader
from raysched.store.requests import Requests, read_cancellations
from raysched.store.rows import plain_flow_run
from raysched.store.tables import DRIVER, FLOW_RUN, TASK_GROUP, TASK_RUN
from raysched.store.traces import TraceReader, Traces
from raysched.store.views import RunView, TaskRunView, shown_state

PAGE = 200
"""Runs fetched at once."""

_CANDIDATES = 5
"""Runs that an error names."""


class Reader(EvidenceReader, EndingsReader, EarlierReader, CacheReader, TraceReader, ReplayReader):
    """Reads runs while others write them; shows each at the moment of the call.

    A run is given as the `RunView` that `find_run`, `runs` or `children` returned.
    """

    def find_run(self, text: str) -> RunView:
        """Return a run by its id, a unique prefix of it, or `last` for the newest one.

        Raises:
            RunNotFound: No run, or more than one, matches; names candidates.
        """
        newest = _select_runs().order_by(FLOW_RUN.c.number.desc())
        if text == "last":
            rows = self._rows(newest.where(FLOW_RUN.c.parent == "").limit(1))
        else:
            by_prefix = FLOW_RUN.c.id.startswith(text.lower(), autoescape=True)
            rows = self._rows(newest.where(by_prefix).limit(_CANDIDATES + 1))
        rows = [row for row in rows if row["id"] == text.lower()] or rows
        if len(rows) != 1 or not text:
            raise RunNotFound(self._not_found(text, rows))
        (view,) = self._views(rows)
        return view

    def runs(
        self,
        *,
        states: Collection[StateType] | None = None,
        flow: str | None = None,
        since_ns: int | None = None,
        limit: int | None = None,
        include_children: bool = False,
    ) -> list[RunView]:
        """Return runs, newest first.

        Args:
            states: Only runs in these states, derived ones.
            flow: Only runs of the flow of that name.
            since_ns: Only runs that started at that time (ns since the epoch) or later.
            limit: At most so many.
            include_children: Also subflows' runs.
        """
        conditions: list[ColumnElement[bool]] = []
        if flow is not None:
            conditions.append(FLOW_RUN.c.flow == flow)
        if since_ns is not None:
            conditions.append(FLOW_RUN.c.started >= since_ns)
        if not include_children:
            conditions.append(FLOW_RUN.c.parent == "")
        return self._list(conditions, states, limit)

    def run_of_key(self, key: str) -> RunView | None:
        """Return the run with a key of its own, or None."""
        return next(iter(self._list([FLOW_RUN.c.key == key], None, 1)), None)

    def children(self, run: RunView) -> list[RunView]:
        """Return the runs of the subflows that a run called, newest first."""
        return self._list([FLOW_RUN.c.parent == run.id], None, None)

    def last_completed(self, run: RunView) -> RunView | None:
        """Return the last run of the same flow before a run that completed, or None.

        Flows of one name in files of different names are different ones, as far as that is known.
        """
        earlier = [FLOW_RUN.c.flow == run.flow, FLOW_RUN.c.number < run.number]
        if run.target:
            target = FLOW_RUN.c.target
            in_file = target.endswith(f"/{run.target.rpartition('/')[2]}", autoescape=True)
            earlier.append(or_(in_file, target.in_([run.target, ""])))
        return next(iter(self._list(earlier, [StateType.COMPLETED], 1)), None)

    def last_success(
        self, run: RunView, task: str, index: int
    ) -> tuple[RunView, TaskRunView] | None:
        """Return a task run of the same flow's same task that completed last before a run.

        Of that earlier run it is the one with the same index, if that completed, else the first.
        """
        completed = (
            select(FLOW_RUN.c.number)
            .join(TASK_GROUP, TASK_GROUP.c.run == FLOW_RUN.c.number)
            .join(
                TASK_RUN,
                (TASK_RUN.c.run == TASK_GROUP.c.run) & (TASK_RUN.c.grp == TASK_GROUP.c.id),
            )
            .where(
                FLOW_RUN.c.flow == run.flow,
                FLOW_RUN.c.number < run.number,
                FLOW_RUN.c.removed.is_(None),
                TASK_GROUP.c.task == task,
                TASK_RUN.c.state == int(StateType.COMPLETED),
            )
            .order_by(FLOW_RUN.c.number.desc())
            .limit(1)
        )
        with self._reading() as connection:
            number = connection.execute(completed).scalar()
        if number is None:
            return None
        (earlier,) = self._list([FLOW_RUN.c.number == number], None, 1)
        same = self.task_run(earlier, task, index)
        if same is not None and same.state is StateType.COMPLETED:
            return earlier, same
        of_task = self.task_runs(earlier, task=task, states=[StateType.COMPLETED], limit=1)
        return earlier, next(of_task)

    @property
    def requests(self) -> Requests:
        """Where something is asked of the drivers of runs."""
        return Requests(self._database)

    @property
    def traces(self) -> Traces:
        """Where it is noted which spans have been delivered."""
        return Traces(self._database)

    def undelivered(self, since_ns: int, *, limit: int, only_lost: bool = False) -> list[RunView]:
        """Return runs with spans that nobody delivers any more, newest first.

        They have ended, or were lost, with a sampled execution that is not among `traced`, and
        their driver, which delivers what it can, is dead.

        Args:
            since_ns: Only runs that were opened at that time (ns since the epoch) or later.
            limit: At most so many.
            only_lost: Only those whose driver was lost.
        """
        # Compared, so that the index serves: it has only these.
        untraced = _select_runs().where(
            FLOW_RUN.c.untraced == true(), FLOW_RUN.c.started >= since_ns
        )
        newest = untraced.order_by(FLOW_RUN.c.number.desc())
        found = self._rows(
            newest.with_only_columns(FLOW_RUN.c.number, FLOW_RUN.c.state, DRIVER.c.id)
        )
        living = self._database.living({row["id"] for row in found}) if found else set()
        numbers = [
            row["number"]
            for row in found
            if row["id"] not in living and not (only_lost and row["state"] >= FIRST_TERMINAL)
        ]
        return self._views(self._rows(newest.where(FLOW_RUN.c.number.in_(numbers[:limit]))))

    def groups(self, run: RunView) -> list[GroupRow]:
        """Return the groups of a run, in the order of their calls."""
        with self._reading() as connection:
            return task_runs.read_groups(connection, run.number)

    def task_counts(self, run: RunView) -> dict[str, dict[StateType, int]]:
        """Return `{task: {state: task runs}}`, tasks in order of calls, without empty states."""
        with self._reading() as connection:
            groups = task_runs.read_groups(connection, run.number)
            recorded = count_states_by_group(connection, run.number)
        counts: dict[str, Counter[StateType]] = {}
        for group in groups:
            of_task = counts.setdefault(group.task, Counter())
            with_row = recorded.get(group.id, {})
            for code, count in with_row.items():
                of_task[shown_state(StateType(code), lost=run.lost)] += count
            of_task[StateType.SCHEDULED] += group.size - sum(with_row.values())
        return {
            task: {state: of_task[state] for state in StateType if of_task[state]}
            for task, of_task in counts.items()
        }

    def task_runs(
        self,
        run: RunView,
        *,
        task: str | None = None,
        states: Collection[StateType] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> Iterator[TaskRunView]:
        """Yield the task runs of a run by group, in order of calls, also those without a row yet.

        Rows are fetched as they are needed, in many short transactions: each task run comes once,
        as it is when it is fetched.

        Args:
            run: The run.
            task: Only those of that task.
            states: Only those in these states, derived ones.
            limit: At most so many.
            offset: Leave out so many at the start.
        """
        window = slice(offset, None if limit is None else offset + limit)
        return task_runs.stream(self._reading, run, task=task, states=states, window=window)

    def task_run(self, run: RunView, task: str, index: int) -> TaskRunView | None:
        """Return the task run `task[index]`, or None if there is none."""
        return task_runs.find(self._reading, run, task, index)

    def members_of(
        self, run: RunView, group: GroupRow, start: int, stop: int
    ) -> tuple[list[TaskRunView], dict[int, bytes]]:
        """Return members of a group, and their kept values as envelopes by position.

        Args:
            run: The run.
            group: The group.
            start: Position of the first member.
            stop: The end of the range.
        """
        views = task_runs.members(self._reading, run, group, start, stop)
        with self._reading() as connection:
            return views, task_runs.read_values(connection, run.number, group.id, start, stop)

    def value(self, run: RunView, task: str, index: int) -> bytes | None:
        """Return the envelope of the value of `task[index]`, or None where none is kept."""
        view = self.task_run(run, task, index)
        if view is None:
            return None
        query = select(TASK_RUN.c.value).where(
            TASK_RUN.c.run == run.number,
            TASK_RUN.c.grp == view.group,
            TASK_RUN.c.idx == view.member,
        )
        with self._reading() as connection:
            value: bytes | None = connection.execute(query).scalar()
            return value

    def _not_found(self, text: str, matching: Sequence[RowMapping]) -> str:
        if matching and text:
            ids = ", ".join(row["id"] for row in matching[:_CANDIDATES])
            more = " and more" if len(matching) > _CANDIDATES else ""
            return f"run {text!r}: several ids begin so ({ids}{more}); give more digits"
        newest = self.runs(limit=_CANDIDATES)
        if not newest:
            return f"run {text!r}: there are no runs yet in {self._database.name}"
        known = ", ".join(f"{run.id} ({run.flow})" for run in newest)
        return f"run {text!r}: no id begins so; the newest runs are {known}"

    def _list(
        self,
        conditions: Sequence[ColumnElement[bool]],
        states: Collection[StateType] | None,
        limit: int | None,
    ) -> list[RunView]:
        query = _select_runs().where(*conditions).order_by(FLOW_RUN.c.number.desc())
        if states is not None:
            query = query.where(FLOW_RUN.c.state.in_(_recorded_codes(states)))
        page = query.limit(PAGE if limit is None else min(limit, PAGE))
        found: list[RunView] = []
        while rows := self._rows(page):
            views = self._views(rows)
            found.extend(view for view in views if states is None or view.state in states)
            if limit is not None and len(found) >= limit:
                break
            page = page.where(FLOW_RUN.c.number < rows[-1]["number"])
        return found[:limit]

    def _rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        with self._reading() as connection:
            return connection.execute(query).mappings().all()

    def _views(self, rows: Sequence[RowMapping]) -> list[RunView]:
        rows, lost = self._find_lost(rows)
        going_on = [row["number"] for row in rows if row["state"] < FIRST_TERMINAL]
        uncounted = [row["number"] for row in rows if row["counts"] is None]
        counted: dict[int, dict[int, int]] = {}
        asked: dict[int, str] = {}
        if uncounted or going_on:
            with self._reading() as connection:
                counted = count_states(connection, uncounted)
                asked = read_cancellations(connection, going_on)
        views = [
            _run_view(row, counted.get(row["number"]), lost=row["number"] in lost) for row in rows
        ]
        return [
            _cancelling(view, asked[view.number])
            if view.number in asked and not view.lost
            else view
            for view in views
        ]

    def _find_lost(self, rows: Sequence[RowMapping]) -> tuple[Sequence[RowMapping], set[int]]:
        """Return the rows, perhaps newer ones, and the numbers of runs whose driver died."""
        suspects = self._without_driver(rows)
        if not suspects:
            return rows, suspects
        # A driver that has just closed its run gives up its lock after that: look once more.
        number = FLOW_RUN.c.number
        again = _select_runs().where(number.in_([row["number"] for row in rows]))
        rows = self._rows(again.order_by(number.desc()))
        return rows, suspects & self._without_driver(rows)

    def _without_driver(self, rows: Sequence[RowMapping]) -> set[int]:
        """Return the numbers of open runs whose driver's lock is free."""
        drivers = {row["number"]: row["driver_id"] for row in rows if row["state"] < FIRST_TERMINAL}
        living = self._database.living(set(drivers.values())) if drivers else set()
        return {run for run, driver in drivers.items() if driver not in living}


def _select_runs() -> Select[Any]:
    columns = [column for column in FLOW_RUN.c if column.name not in _LONG]
    driver = DRIVER.c.id.label("driver_id"), DRIVER.c.host, DRIVER.c.pid
    return select(*columns, *driver).join(DRIVER).where(FLOW_RUN.c.removed.is_(None))


def _recorded_codes(states: Collection[StateType]) -> list[int]:
    """Return the codes that runs shown in these states may be recorded with."""
    derived = not _DERIVED.isdisjoint(states)
    return [
        int(state) for state in StateType if state in states or (derived and not state.is_terminal)
    ]


def _cancelling(view: RunView, by: str) -> RunView:
    return replace(view, state=StateType.CANCELLING, message=f"{by} has asked to cancel it")


def _run_view(row: RowMapping, counted: dict[int, int] | None, *, lost: bool) -> RunView:
    plain = plain_flow_run(row)
    if counted is None:
        counted = {int(code): count for code, count in json.loads(row["counts"]).items()}
    counts: dict[StateType, int] = {}
    for code, count in sorted(counted.items()):
        state = shown_state(StateType(code), lost=lost)
        counts[state] = counts.get(state, 0) + count
    if lost:
        plain["state"] = StateType.CRASHED
        # Where the driver knew why it was about to end, it has said so.
        plain["message"] = row["message"] or CrashKind.DRIVER_LOST.value
    return RunView(
        **plain,
        number=row["number"],
        lost=lost,
        counts=counts,
        late=row["late"],
        host=row["host"],
        pid=row["pid"],
    )


_DERIVED = frozenset({StateType.CRASHED, StateType.CANCELLING})
"""States that open runs may be shown in."""

_LONG = frozenset({"pickled_parameters", "result"})
"""Columns that are not read with every run."""
