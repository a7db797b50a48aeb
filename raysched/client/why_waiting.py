"""What an open flow run waits for, as far as the database tells."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from raysched.client.why_graph import parents_of
from raysched.client.why_verdict import count_of
from raysched.client.words import describe_error, nanoseconds
from raysched.model.rows import ENGINE_LOGGER, GroupRow
from raysched.model.states import StateType

if TYPE_CHECKING:
    from raysched.store.endings import Standing
    from raysched.store.reader import Reader
    from raysched.store.views import LogView, RunView, TaskRunView

MOST_LOOKED_AT = 100
"""Running task runs of a group among which the one that runs longest is found."""

MOST_PARENTS = 3
"""Groups that are named because others wait for them."""

MOST_TASKS = 3
"""Tasks that are named because they have the CPUs."""

MOST_CHARACTERS = 120
"""Of a log record or an exception's message."""

NEXT_ATTEMPT = "next attempt at "
"""What the tracker says of a task run that waits for one, followed by the time (ISO 8601)."""

WAITS = " waits: "
"""What the engine says of a task that no node can take: `train waits: it needs num_gpus=1; …`."""

CPUS = re.compile(r"(\d+(?:\.\d+)?) CPUs?\b")
"""In the description of the backend: how many the cluster had when the run began."""

_MINUTE = 60

_ORDER = (
    StateType.RUNNING,
    StateType.CANCELLING,
    StateType.AWAITING_RETRY,
    StateType.PAUSED,
    StateType.PENDING,
    StateType.SCHEDULED,
)


@dataclass(frozen=True, slots=True)
class Wait:
    """Task runs of one group that wait for the same.

    Attributes:
        task: Name of the task.
        key: Key of the first of them, or of the one that waits for longest; "" if not known.
        count: How many.
        state: Their state.
        reason: What they wait for, for people.
        seconds: For how long already, or None where that is not known.
        ready: Whether nothing that they depend on is open any more.
    """

    task: str
    key: str
    count: int
    state: StateType
    reason: str
    seconds: float | None = None
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Waiting:
    """What an open flow run waits for.

    Attributes:
        run: Its id.
        flow: Name of the flow.
        state: Its state.
        verdict: What it waits for, in a line.
        waits: By group, in the order of their calls.
        subflows: The same of subflows that are open.
    """

    run: str
    flow: str
    state: StateType
    verdict: str
    waits: tuple[Wait, ...]
    subflows: "tuple[Waiting, ...]" = ()


def waiting_for(reader: "Reader", run: "RunView", now: int) -> Waiting:
    """Return what a run waits for.

    Args:
        reader: Where it is kept.
        run: The run.
        now: The present (ns since the epoch).
    """
    if run.state.is_terminal:
        verdict = f"it has ended: {run.state.name}"
        if run.message:
            verdict = f"{verdict} ({run.message})"
        return Waiting(run.id, run.flow, run.state, f"{verdict}; nothing waits", ())
    found = _Open(reader, run, now, _by_group(reader, run), reader.groups(run))
    waits = tuple(found.waits())
    subflows = tuple(
        waiting_for(reader, child, now)
        for child in reversed(reader.children(run))
        if not child.state.is_terminal
    )
    return Waiting(run.id, run.flow, run.state, _verdict(waits, subflows), waits, subflows)


def _by_group(reader: "Reader", run: "RunView") -> "Mapping[int, dict[StateType, Standing]]":
    found: dict[int, dict[StateType, Standing]] = {}
    for standing in reader.standings(run):
        found.setdefault(standing.group, {})[standing.state] = standing
    return found


def _verdict(waits: Sequence[Wait], subflows: Sequence[Waiting]) -> str:
    words = {
        StateType.RUNNING: "running",
        StateType.CANCELLING: "being cancelled",
        StateType.AWAITING_RETRY: "waiting for their next attempt",
        StateType.PAUSED: "paused",
    }
    counts: Counter[str] = Counter()
    for state in _ORDER:
        for wait in waits:
            if wait.state is state:
                what = words.get(state, "ready" if wait.ready else "waiting for others")
                counts[what] += wait.count
    told = [f"{count:,} {what}" for what, count in counts.items()]
    if subflows:
        told.append(count_of(len(subflows), "subflow") + " open")
    if not told:
        return "no task run is open: the flow function itself is at work"
    return f"task runs: {', '.join(told)}"


@dataclass(frozen=True, slots=True)
class _Open:
    """The open members of a run's groups."""

    reader: "Reader"
    run: "RunView"
    now: int
    standings: "Mapping[int, dict[StateType, Standing]]"
    groups: Sequence[GroupRow]

    def waits(self) -> Iterator[Wait]:
        """Yield what waits, by group and state."""
        for group in self.groups:
            by_state = self.standings.get(group.id, {})
            for state in _ORDER[:-1]:
                if state in by_state:
                    yield self._wait(group, by_state[state])
            without_row = group.size - sum(each.count for each in by_state.values())
            scheduled = by_state.get(StateType.SCHEDULED)
            count = without_row + (scheduled.count if scheduled is not None else 0)
            if count:
                yield self._scheduled(group, count, first=not by_state)

    def _wait(self, group: GroupRow, standing: "Standing") -> Wait:
        first = self._first(group, standing)
        key = first.key if first is not None else f"{group.task}[{group.first + standing.first}]"
        reason, since = "", 0
        match standing.state:
            case StateType.RUNNING:
                reason, since = self._running(group, first)
            case StateType.AWAITING_RETRY:
                reason, since = self._retry(group, first)
            case StateType.PENDING:
                reason, since = self._room(group)
            case StateType.CANCELLING:
                reason = "is being cancelled, and may clean up"
            case _:
                pass
        if first is not None and first.reason and _due(first) is None:
            reason = first.reason
        return Wait(group.task, key, standing.count, standing.state, reason, self._seconds(since))

    def _scheduled(self, group: GroupRow, count: int, *, first: bool) -> Wait:
        """Return what those wait for that others have to end before."""
        parents = [each for each in self.groups if each.id in parents_of(group)]
        open_ones = [(each, self._open_count(each)) for each in parents]
        named = [
            f"{each.task}: {number:,} of {each.size:,} open" for each, number in open_ones if number
        ]
        more = f", and {len(named) - MOST_PARENTS} more" if len(named) > MOST_PARENTS else ""
        key = f"{group.task}[{group.first}]" if first else ""
        if named:
            reason = f"waits for {', '.join(named[:MOST_PARENTS])}{more}"
            return Wait(group.task, key, count, StateType.SCHEDULED, reason, ready=False)
        reason, since = self._room(group)
        return Wait(group.task, key, count, StateType.SCHEDULED, reason, self._seconds(since))

    def _first(self, group: GroupRow, standing: "Standing") -> "TaskRunView | None":
        """Return the member that has been in this state for longest, as far as one can see."""
        members = self.reader.task_runs(
            self.run, task=group.task, states=[standing.state], limit=MOST_LOOKED_AT
        )
        mine = [member for member in members if member.group == group.id]
        if standing.state is StateType.AWAITING_RETRY:
            return min(mine, key=lambda member: _due(member) or self.now, default=None)
        return min(mine, key=lambda member: member.started, default=None)

    def _running(self, group: GroupRow, first: "TaskRunView | None") -> tuple[str, int]:
        if first is None:
            return "runs", 0
        logs = self.reader.last_logs(self.run, group.id, first.member, 1)
        if not logs:
            return "runs, and has logged nothing", first.started
        ago = (self.now - logs[-1].at) / 10**9
        return f"runs; {ago:.0f} s ago it said: {_short(logs[-1].message)}", first.started

    def _retry(self, group: GroupRow, first: "TaskRunView | None") -> tuple[str, int]:
        if first is None:
            return "waits for its next attempt", 0
        due = _due(first)
        when = f", in {_span(due - self.now)}," if due is not None and due > self.now else ""
        attempts = self.reader.attempts(self.run, group.id, first.member)
        if not attempts:
            return f"waits for its next attempt{when}".rstrip(","), first.ended
        error = attempts[-1].error
        said = f" after {_short(describe_error(error))}" if error is not None else ""
        told = f"waits for attempt {attempts[-1].attempt + 1}{when}{said}"
        return told.rstrip(","), attempts[-1].ended

    def _room(self, group: GroupRow) -> tuple[str, int]:
        """Return why members that are ready do not run, and since when they are ready (ns)."""
        since = max(
            (each.ended for parent in parents_of(group) for each in self._standings_of(parent)),
            default=0,
        )
        lacking = self._lacking(group.task)
        # What was said before one of them ran is not true any more.
        if lacking is not None and lacking.at > self._last_began(group.id):
            return f"waits for room: {lacking.message.partition(WAITS)[2]}", lacking.at
        running = self._count(group.id, StateType.RUNNING)
        most = json.loads(group.options).get("max_parallel")
        if most is not None and running >= most:
            return f"waits for its turn: {running:,} run, and max_parallel is {most:,}", since
        if taken := self._taken(group):
            return taken, since or self.run.started
        total = sum(self._count(each.id, StateType.RUNNING) for each in self.groups)
        others = f"{count_of(total, 'task run')} of this run known to be running"
        return f"ready, or begun and not told yet; {others}", since or self.run.started

    def _taken(self, group: GroupRow) -> str:
        """Return by what the CPUs that a group needs are taken, or "" if not by this run."""
        found = CPUS.search(self.run.backend)
        needs = _cpus(group)
        running = {each.id: self._count(each.id, StateType.RUNNING) for each in self.groups}
        used = sum(running[each.id] * _cpus(each) for each in self.groups)
        if found is None or needs == 0 or used + needs <= float(found[1]):
            return ""
        by_task: Counter[str] = Counter()
        for each in self.groups:
            if running[each.id]:
                by_task[each.task] += running[each.id]
        named = ", ".join(f"{task} {number:,}" for task, number in by_task.most_common(MOST_TASKS))
        more = ", …" if len(by_task) > MOST_TASKS else ""
        return (
            f"no room: it needs num_cpus={needs:g}, and {used:g} of {found[1]} are taken by "
            f"{named}{more}"
        )

    def _lacking(self, task: str) -> "LogView | None":
        """Return the last time that the engine said what a task lacks, or None."""
        said = self.reader.logs(self.run, logger=ENGINE_LOGGER)
        return next((row for row in reversed(said) if row.message.startswith(task + WAITS)), None)

    def _last_began(self, group: int) -> int:
        return max((each.started for each in self._standings_of(group)), default=0)

    def _standings_of(self, group: int) -> "Sequence[Standing]":
        return list(self.standings.get(group, {}).values())

    def _open_count(self, group: GroupRow) -> int:
        ended = sum(each.count for each in self._standings_of(group.id) if each.state.is_terminal)
        return group.size - ended

    def _count(self, group: int, state: StateType) -> int:
        standing = self.standings.get(group, {}).get(state)
        return standing.count if standing is not None else 0

    def _seconds(self, since: int) -> float | None:
        return max(self.now - since, 0) / 10**9 if since else None


def _cpus(group: GroupRow) -> float:
    """Return how many CPUs a member reserves: 1 by default, as Ray's tasks do."""
    asked: str | None = json.loads(group.options).get("num_cpus")
    try:
        return 1.0 if asked is None else float(asked)
    except ValueError:
        return 1.0


def _due(view: "TaskRunView") -> int | None:
    """Return when the next attempt is due (ns since the epoch), or None where that is not kept."""
    try:
        return nanoseconds(datetime.fromisoformat(view.reason.removeprefix(NEXT_ATTEMPT)))
    except ValueError:
        return None


def _span(ns: int) -> str:
    """Return a span of time in whole units, rounded up: `12 s`, `4 min`."""
    seconds = -(-ns // 10**9)
    return f"{seconds} s" if seconds < 2 * _MINUTE else f"{-(-seconds // _MINUTE)} min"


def _short(text: str) -> str:
    first = next(iter(text.splitlines()), "")
    return first if len(first) <= MOST_CHARACTERS else f"{first[:MOST_CHARACTERS]}…"
