"""How the task runs of a run ended, counted: a million of them take as little as there are ways.

What failed is counted by its fingerprint, so ten thousand equal failures are one row here.
"""

import json
from collections.abc import Collection, Generator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, func, literal, or_, select

from raysched.model.states import StateType
from raysched.model.values import FailureClass
from raysched.store.snapshots import Snapshots
from raysched.store.tables import ATTEMPT, HAS_VALUE, TASK_RUN
from raysched.store.views import (
    BETWEEN_ATTEMPTS,
    DRIVER_LOST,
    LOST_WITH_DRIVER,
    RunView,
    shown_state,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """Members of a group that are in one state.

    Attributes:
        group: Id of the group.
        state: Their state, as `RunView` derives it.
        count: How many, without those that have no row yet and are SCHEDULED.
        kept: How many have a value, in the database or the result storage, and were not undone.
        rolled_back: How many completed and were undone.
        first: The first one's position.
        started: When the first attempt of those began (ns), 0 if none did.
        ended: When the last one of those that have ended did (ns), 0 if none has.
        sent: How many have an attempt of whose start nothing is known.
    """

    group: int
    state: StateType
    count: int
    kept: int
    rolled_back: int
    first: int
    started: int
    ended: int
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """Members of a group that ended alike, without a value and not because of others.

    Attributes:
        group: Id of the group.
        state: Their state, as `RunView` derives it.
        count: How many.
        first: The first one's position.
        handled: Whether the flow handled them.
        reason: Why, where no attempt tells it, or "".
        fingerprint: Of the last attempt, or "".
        type: Class of its exception, or "".
        failure_class: Who is to blame, or None where there was no attempt.
        kind: `CrashKind` or `TimeoutKind` value, or "".
        stopped: Why there was no attempt after the last one, or "".
    """

    group: int
    state: StateType
    count: int
    first: int
    handled: bool = False
    reason: str = ""
    fingerprint: str = ""
    type: str = ""
    failure_class: FailureClass | None = None
    kind: str = ""
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Followers:
    """Members of a group that did not run because of the same others.

    Attributes:
        group: Id of the group.
        count: How many.
        first: The first one's position.
        roots: Keys of the failures that they follow from.
        reason: Why, where it is not the failure of a parent, or "".
    """

    group: int
    count: int
    first: int
    roots: tuple[str, ...] = ()
    reason: str = ""


class EndingsReader(Snapshots):
    """What a `Reader` tells about how task runs ended."""

    def standings(self, run: RunView) -> list[Standing]:
        """Return how many members of each group are in which state, by group."""
        ended = func.max(TASK_RUN.c.started + TASK_RUN.c.duration)
        # Those that have not begun have 0, which is not when they began.
        started = func.min(func.nullif(TASK_RUN.c.started, 0))
        undone, location = TASK_RUN.c.rolled_back, TASK_RUN.c.location
        query = (
            select(
                TASK_RUN.c.grp,
                TASK_RUN.c.state,
                func.count(),
                func.count().filter(undone.is_not(True), or_(HAS_VALUE, location.is_not(None))),
                func.count().filter(undone.is_(True)),
                func.min(TASK_RUN.c.idx),
                started,
                ended,
                func.count().filter(TASK_RUN.c.attempts > 0, TASK_RUN.c.started == 0),
            )
            .where(TASK_RUN.c.run == run.number)
            .group_by(TASK_RUN.c.grp, TASK_RUN.c.state)
            .order_by(TASK_RUN.c.grp, TASK_RUN.c.state)
        )
        with self._reading() as connection:
            return [
                Standing(
                    group, _shown(run, state), count, kept, undid, first, began or 0, end or 0, sent
                )
                for group, state, count, kept, undid, first, began, end, sent in (
                    connection.execute(query)
                )
            ]

    def endings(self, run: RunView, states: Collection[StateType]) -> list[Ending]:
        """Return how members ended that are in these states, by group, the first ones first.

        Members that are counted together have all attributes of an `Ending` in common. Those that
        COMPLETED by their fallback only, which count as handled failures, are always among them.
        """
        first = func.min(TASK_RUN.c.idx)
        query = _with_error(select(*_ALIKE, func.count(), first), run, states)
        query = query.group_by(*_ALIKE).order_by(TASK_RUN.c.grp, first)
        with self._reading() as connection:
            return [_ending(run, row) for row in connection.execute(query)]

    def members(self, run: RunView, states: Collection[StateType]) -> Generator[Ending]:
        """Yield what `endings` counts for each member, in order: `first` is its position."""
        query = _with_error(select(*_ALIKE, literal(1), TASK_RUN.c.idx), run, states)
        with self._reading() as connection:
            for row in connection.execute(query.order_by(TASK_RUN.c.grp, TASK_RUN.c.idx)):
                yield _ending(run, row)

    def followers(self, run: RunView) -> list[Followers]:
        """Return the members that are UPSTREAM_FAILED by group and by what they follow from."""
        alike = (TASK_RUN.c.grp, TASK_RUN.c.roots, TASK_RUN.c.reason)
        first = func.min(TASK_RUN.c.idx)
        query = (
            select(*alike, func.count(), first)
            .where(TASK_RUN.c.run == run.number, TASK_RUN.c.state == int(StateType.UPSTREAM_FAILED))
            .group_by(*alike)
            .order_by(TASK_RUN.c.grp, first)
        )
        with self._reading() as connection:
            return [
                Followers(
                    group, count, start, tuple(json.loads(roots)) if roots else (), reason or ""
                )
                for group, roots, reason, count, start in connection.execute(query)
            ]


_ALIKE = (
    TASK_RUN.c.grp,
    TASK_RUN.c.state,
    TASK_RUN.c.handled,
    TASK_RUN.c.reason,
    ATTEMPT.c.error_fingerprint,
    ATTEMPT.c.error_type,
    ATTEMPT.c.error_class,
    ATTEMPT.c.error_kind,
    ATTEMPT.c.stop_reason,
)


def _with_error(query: Select[Any], run: RunView, states: Collection[StateType]) -> Select[Any]:
    recorded = [int(state) for state in StateType if shown_state(state, lost=run.lost) in states]
    last = and_(
        ATTEMPT.c.run == TASK_RUN.c.run,
        ATTEMPT.c.grp == TASK_RUN.c.grp,
        ATTEMPT.c.idx == TASK_RUN.c.idx,
        ATTEMPT.c.attempt == TASK_RUN.c.attempts,
    )
    fell_back = and_(TASK_RUN.c.state == int(StateType.COMPLETED), TASK_RUN.c.handled)
    return query.select_from(TASK_RUN.outerjoin(ATTEMPT, last)).where(
        TASK_RUN.c.run == run.number, or_(TASK_RUN.c.state.in_(recorded), fell_back)
    )


def _ending(run: RunView, row: Any) -> Ending:
    group, code, handled, reason, *error, stopped, count, first = row
    fingerprint, error_type, failure_class, kind = error
    if run.lost and code in LOST_WITH_DRIVER:
        lost = DRIVER_LOST
        return Ending(
            group,
            StateType.CRASHED,
            count,
            first,
            reason=BETWEEN_ATTEMPTS if error_type is not None else "",
            type=lost.type,
            failure_class=lost.failure_class,
            kind=lost.kind,
        )
    return Ending(
        group,
        StateType(code),
        count,
        first,
        bool(handled),
        reason or "",
        fingerprint or "",
        error_type or "",
        FailureClass(failure_class) if failure_class else None,
        kind or "",
        stopped or "",
    )


def _shown(run: RunView, code: int) -> StateType:
    return shown_state(StateType(code), lost=run.lost)
