"""Failures of a run by their innermost cause, and which task runs did not run because of each."""

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from raysched.client.why_facts import Stop
from raysched.client.why_graph import Touched
from raysched.model.rows import GroupRow
from raysched.model.states import ROOT_FAILURES, StateType
from raysched.model.values import FailureClass

if TYPE_CHECKING:
    from raysched.store.endings import Ending, Followers
    from raysched.store.reader import Reader
    from raysched.store.views import RunView

MOST_KEYS = 5
"""Keys of failures that are named because they are like the first one."""

MOST_STOPS = 10
"""Reasons why retrying stopped that are told of failures that are alike otherwise."""

OTHER_REASONS = "for other reasons"
"""Stands for the reasons beyond these."""


@dataclass(slots=True)
class Kind:
    """Failures with one innermost cause.

    Attributes:
        alike: What they have in common.
        group: Group of the first one.
        first: Its position there.
        state: How they ended.
        failure_class: Who is to blame.
        reason: Why, where no attempt tells it, or "".
        kind: `CrashKind` or `TimeoutKind` value, or "".
        by_group: How many there are by group.
        keys: Keys of the first ones, at most `MOST_KEYS`.
        handled: How many of them the flow handled.
        victims: Task runs by task that did not run because of them.
        stops: How many stopped being tried again for each reason, and the first one's key.
    """

    alike: Hashable
    group: GroupRow
    first: int
    state: StateType
    failure_class: FailureClass
    reason: str = ""
    kind: str = ""
    by_group: Counter[int] = field(default_factory=Counter)
    keys: list[str] = field(default_factory=list)
    handled: int = 0
    victims: Counter[str] = field(default_factory=Counter)
    stops: dict[str, Stop] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many there are."""
        return self.by_group.total()

    @property
    def options(self) -> Mapping[str, Any]:
        """What the task of the first one was declared with, as far as it was kept."""
        found: Mapping[str, Any] = json.loads(self.group.options)
        return found

    @property
    def teardown(self) -> bool:
        """Whether that is a teardown, whose failure never fails the run."""
        return bool(self.options.get("teardown"))

    def stop(self, reason: str, count: int, key: str) -> None:
        """Count failures that were not tried again for a reason; `key` is the first one's."""
        if reason not in self.stops and len(self.stops) >= MOST_STOPS:
            reason = OTHER_REASONS
        counted = self.stops.get(reason)
        if counted is None:
            self.stops[reason] = Stop(reason, count, key)
        else:
            self.stops[reason] = replace(counted, count=counted.count + count)

    @property
    def rank(self) -> tuple[bool, bool, bool, int, int, int]:
        """Where it stands among others: first what nobody handled and what had consequences."""
        cancelled = self.failure_class is FailureClass.CANCELLED
        victims = self.victims.total()
        handled = self.handled == self.count
        return handled, cancelled, self.teardown, -victims, self.group.id, self.first


@dataclass(frozen=True, slots=True)
class Failures:
    """What failed in a run, and what did not run because of that.

    Attributes:
        groups: The groups of the run.
        kinds: By innermost cause, in the order in which they are told.
        touched: By group, for `why_graph.locate`.
        not_run: How many did not run because of failures.
        reasons: Why task runs ended without an attempt, with how many there are.
    """

    groups: Sequence[GroupRow]
    kinds: tuple[Kind, ...]
    touched: Mapping[int, Touched]
    not_run: int
    reasons: Mapping[str, int]


def find_failures(reader: "Reader", run: "RunView") -> Failures:
    """Return what failed in a run; what was only cancelled counts if others hang on it.

    Takes memory for each group and each innermost cause; where there are several causes, also for
    each failure (a few bytes), to tell which one a victim follows from.
    """
    endings = reader.endings(run, ROOT_FAILURES)
    followers = reader.followers(run)
    # Read last: a group is written before its members, so each of those has its group here.
    groups = reader.groups(run)
    kinds = _kinds(endings, groups)
    keys = Keys(groups)
    roots: defaultdict[int, set[int]] = defaultdict(set)
    for each in followers:
        roots[each.group].update(keys.groups(each.roots))
    _attribute(reader, run, kinds, followers, keys)
    not_run: Counter[int] = Counter()
    for each in followers:
        not_run[each.group] += each.count
    told = _told(kinds.values())
    failed: Counter[int] = Counter()
    for kind in told:
        failed.update(kind.by_group)
    touched = {
        group: Touched(failed[group], not_run[group], frozenset(roots[group]))
        for group in sorted({*failed, *not_run})
    }
    reasons: Counter[str] = Counter()
    for ending in endings:
        if ending.reason and ending.state is StateType.CANCELLED:
            reasons[ending.reason] += ending.count
    for each in followers:
        if each.reason:
            reasons[each.reason] += each.count
    return Failures(groups, tuple(told), touched, not_run.total(), reasons)


def name_some(reader: "Reader", run: "RunView", kinds: Sequence[Kind], keys: "Keys") -> None:
    """Fill in the keys of the first failures of each of these kinds."""
    wanted = {kind.alike: kind for kind in kinds}
    missing = set(wanted)
    with closing(reader.members(run, ROOT_FAILURES)) as members:
        for ending in members:
            kind = wanted.get(_alike(ending))
            if kind is None or ending.group not in keys.tasks:
                continue
            if len(kind.keys) < MOST_KEYS:
                kind.keys.append(keys.key(ending.group, ending.first))
            if len(kind.keys) == min(MOST_KEYS, kind.count):
                missing.discard(kind.alike)
                if not missing:
                    return


def _kinds(endings: Iterable["Ending"], groups: Sequence[GroupRow]) -> dict[Hashable, Kind]:
    by_id = {group.id: group for group in groups}
    kinds: dict[Hashable, Kind] = {}
    for ending in endings:
        group = by_id[ending.group]
        failure_class = ending.failure_class or class_of(ending.state)
        if ending.state is StateType.CANCELLED:
            # It may have failed before, and waited for its next attempt.
            failure_class = FailureClass.CANCELLED
        alike = _alike(ending)
        if alike not in kinds:
            kinds[alike] = Kind(
                alike,
                group,
                ending.first,
                ending.state,
                failure_class,
                ending.reason,
                ending.kind,
            )
        kind = kinds[alike]
        kind.by_group[group.id] += ending.count
        kind.handled += ending.count if ending.handled else 0
        if stopped := ending.reason or ending.stopped:
            kind.stop(stopped, ending.count, f"{group.task}[{group.first + ending.first}]")
    return kinds


def _alike(ending: "Ending") -> Hashable:
    """Return what failures with one innermost cause have in common."""
    if ending.fingerprint:
        return ending.state, ending.fingerprint
    return ending.state, ending.type, ending.kind, ending.failure_class, ending.reason


def class_of(state: StateType) -> FailureClass:
    """Return who is to blame for a task run that ended so without an attempt that tells it."""
    match state:
        case StateType.CANCELLED:
            return FailureClass.CANCELLED
        case StateType.UPSTREAM_FAILED:
            return FailureClass.UPSTREAM
        case StateType.TIMED_OUT:
            return FailureClass.TIMEOUT
        case StateType.CRASHED:
            return FailureClass.INFRASTRUCTURE
        case _:
            return FailureClass.USER


def _told(kinds: Iterable[Kind]) -> list[Kind]:
    """Return the kinds in order, without those that were only cancelled with the rest."""
    ranked = sorted(kinds, key=lambda kind: kind.rank)
    return [
        kind
        for kind in ranked
        if kind.failure_class is not FailureClass.CANCELLED or kind.victims or kind.handled
    ]


def _attribute(
    reader: "Reader",
    run: "RunView",
    kinds: Mapping[Hashable, Kind],
    followers: Iterable["Followers"],
    keys: "Keys",
) -> None:
    """Count by kind what did not run because of it."""
    tasks = keys.tasks
    if len(kinds) == 1:
        (only,) = kinds.values()
        for each in followers:
            only.victims[tasks[each.group]] += each.count
        return
    by_key: dict[str, Kind] = {}
    if any(each.roots for each in followers):
        for ending in reader.members(run, ROOT_FAILURES):
            # What has failed since the kinds were counted is of no kind yet.
            if (kind := kinds.get(_alike(ending))) and ending.group in tasks:
                by_key[keys.key(ending.group, ending.first)] = kind
    for each in followers:
        for kind in {id(by_key[key]): by_key[key] for key in each.roots if key in by_key}.values():
            kind.victims[tasks[each.group]] += each.count


class Keys:
    """Keys of task runs, and the groups that they are in."""

    def __init__(self, groups: Iterable[GroupRow]) -> None:
        self.tasks: dict[int, str] = {}
        self._firsts: defaultdict[str, list[int]] = defaultdict(list)
        self._groups: defaultdict[str, list[GroupRow]] = defaultdict(list)
        self._by_id: dict[int, GroupRow] = {}
        for group in sorted(groups, key=lambda each: each.first):
            self.tasks[group.id] = group.task
            self._by_id[group.id] = group
            self._firsts[group.task].append(group.first)
            self._groups[group.task].append(group)

    def key(self, group: int, position: int) -> str:
        """Return the key of a member of a group."""
        row = self._by_id[group]
        return f"{row.task}[{row.first + position}]"

    def groups(self, keys: Iterable[str]) -> Iterable[int]:
        """Yield the ids of the groups that these are in."""
        for key in keys:
            task, _, rest = key.rpartition("[")
            of_task = self._groups.get(task)
            if of_task:
                yield of_task[bisect_right(self._firsts[task], int(rest[:-1])) - 1].id
