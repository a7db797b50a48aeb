"""Asking the cache before task runs begin: keys, claims, and waiting for who makes a result."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from raysched.engine.cache_keys import CacheKeys, Found
from raysched.engine.callbacks import Callbacks
from raysched.engine.flow_run import OpenFlowRun
from raysched.engine.ports import Clock
from raysched.graph.group import Group
from raysched.model.ids import task_name_of
from raysched.model.records import CacheAnswer, CacheClaim, CacheVerdict
from raysched.model.rows import ENGINE_LOGGER, LogRow
from raysched.model.states import StateType
from raysched.model.values import StoredValue, Value
from raysched.settings import Settings
from raysched.tracker.messages import AskCache, CacheAnswered, Event

logger = logging.getLogger("raysched.engine")

AGAIN_NS = 10**9
"""How often it is asked whether another flow run has made a result (ns)."""

MOST_TOLD = 20
"""Members of a group of which it is told why they run uncached."""

NOT_CACHED = "not cached: "
"""How the log record of a task run begins that has no cache key."""

SHORT_ID = 8


class CachingHost(Protocol):
    """What caching needs from the engine."""

    @property
    def settings(self) -> Settings:
        """Settings."""

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """Have `function(*args)` called in the next turn; from any thread."""

    def advance(self, run: OpenFlowRun, event: Event) -> None:
        """Let the tracker account for an event; within a turn."""

    def touch(self, run: OpenFlowRun) -> None:
        """Commit what `run` has collected at the end of this turn; within a turn."""


class Claiming(Protocol):
    """Where results are asked for: `Keeper.claim`."""

    def claim(self, run: int, claims: Sequence[CacheClaim]) -> Sequence[CacheAnswer]:
        """See `engine.ports.Store.claim`."""


@dataclass(slots=True)
class _Waiting:
    """Members of one group whose results others are making.

    Attributes:
        claims: What they ask for, by member.
        told: What was told of each.
    """

    run: OpenFlowRun
    group: Group
    claims: dict[int, CacheClaim] = field(default_factory=dict)
    told: dict[int, str] = field(default_factory=dict)


class Caching:
    """Answers `AskCache`: looks in the cache, and claims what is not there.

    Keys are made, and the store is asked, in one thread of its own, since that runs user code and
    reads files; with an inline backend in the thread that takes the turn.

    Args:
        host: The engine.
        claiming: Where to ask.
        clock: The engine's clock.
        at: Has something called at a time (ns), in a turn: `Loop.at`.
        inline: Whether there is to be no thread.
    """

    def __init__(
        self,
        host: CachingHost,
        claiming: Claiming,
        clock: Clock,
        at: Callable[..., None],
        *,
        inline: bool,
    ) -> None:
        self._host = host
        self._claiming = claiming
        self._clock = clock
        self._at = at
        self._keys = CacheKeys()
        self._thread = Callbacks(inline=inline)
        self._watched: dict[Group, dict[int, list[_Waiting]]] = {}
        self._told: WeakKeyDictionary[OpenFlowRun, dict[int, int]] = WeakKeyDictionary()

    def ask(self, run: OpenFlowRun, command: AskCache) -> None:
        """Find out what the cache has for members of a group; within a turn.

        Answers come as `CacheAnswered`, in several parts.
        """
        if run.groups:
            # Others look up who makes a result in the rows of groups.
            run.groups_due = True
            self._host.touch(run)
        self._host.post(self._submit, run, partial(self._look_up, run, command))

    def stop(self) -> None:
        """Answer nothing more."""
        self._thread.stop()

    def _submit(self, run: OpenFlowRun, work: Callable[[], None]) -> None:
        self._thread.submit(run, run.attempt, partial(self._guarded, work))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever it is
            self._host.post(_fail, error)

    def _look_up(self, run: OpenFlowRun, command: AskCache) -> None:
        group = command.group
        for found in self._keys.find(run, group, command.indices):
            waiting = _Waiting(run, group, self._claims(group, found))
            self._claim(waiting, found)

    def _claims(self, group: Group, found: Found) -> dict[int, CacheClaim]:
        options, name = group.spec.cache, group.spec.name
        assert options is not None  # noqa: S101 - otherwise nobody asks
        refresh = options.refresh
        if refresh is None:
            refresh = self._host.settings.refresh_cache
        lifetime, place = options.lifetime, group.place
        return {
            index: CacheClaim(key, *place(index), name, lifetime, refresh, parts)
            for index, (key, parts) in found.keys.items()
        }

    def _claim(self, waiting: _Waiting, found: Found) -> None:
        claims = list(waiting.claims.values())
        answers = self._claiming.claim(waiting.run.number, claims) if claims else ()
        self._host.post(self._take, waiting, found, answers)

    def _take(self, waiting: _Waiting, found: Found, answers: Sequence[CacheAnswer]) -> None:
        """Tell the tracker what was found; within a turn."""
        run, group = waiting.run, waiting.group
        hits: dict[int, tuple[Value, str]] = {}
        misses = list(found.without)
        busy: dict[int, tuple[CacheAnswer, CacheClaim]] = {}
        for (index, claim), answer in zip(waiting.claims.items(), answers, strict=True):
            if answer.verdict is CacheVerdict.MINE:
                misses.append(index)
            elif answer.verdict is CacheVerdict.HIT:
                hits[index] = _value(answer), _source(run, answer)
            else:
                busy[index] = answer, claim
        self._say(run, group, found.without)
        told = {
            index: f"its result is being made by {_who(run, answer)}"
            for index, (answer, _) in busy.items()
        }
        fresh = {index: text for index, text in told.items() if waiting.told.get(index) != text}
        self._host.advance(run, CacheAnswered(group, hits, misses, fresh, found.errors))
        if busy:
            self._wait(
                _Waiting(run, group, {i: claim for i, (_, claim) in busy.items()}, told), busy
            )

    def _wait(self, waiting: _Waiting, busy: Mapping[int, tuple[CacheAnswer, CacheClaim]]) -> None:
        """Ask again when a task run of this flow run has ended, or in a while for others'."""
        others = _Waiting(waiting.run, waiting.group, {}, waiting.told)
        again = _Waiting(waiting.run, waiting.group, {}, waiting.told)
        for index, (answer, claim) in busy.items():
            maker = _member(waiting.run, answer)
            if maker is None:
                others.claims[index] = claim
            elif maker[0].is_visible(maker[1]):
                again.claims[index] = claim
            else:
                one = _Waiting(waiting.run, waiting.group, {index: claim}, waiting.told)
                self._watch(*maker, one)
        if others.claims:
            self._at(self._clock.now() + AGAIN_NS, self._again, others)
        if again.claims:
            self._again(again)

    def _watch(self, group: Group, index: int, waiting: _Waiting) -> None:
        if group not in self._watched:
            self._watched[group] = {}
            group.watchers.append(self._ended)
        self._watched[group].setdefault(index, []).append(waiting)

    def _ended(self, group: Group, indices: Iterable[int]) -> None:
        """Ask again for those who waited for these; within a turn."""
        watched = self._watched[group]
        for index in indices:
            for waiting in watched.pop(index, ()):
                self._again(waiting)
        if not watched:
            del self._watched[group]
            group.watchers.remove(self._ended)

    def _again(self, waiting: _Waiting) -> None:
        """Ask again for those that still wait; within a turn."""
        run, states = waiting.run, waiting.group.states
        waiting.claims = {
            index: claim
            for index, claim in waiting.claims.items()
            if states[index] == StateType.PENDING
        }
        if waiting.claims and not run.concluded:
            self._submit(run, partial(self._claim, waiting, Found()))

    def _say(self, run: OpenFlowRun, group: Group, without: Mapping[int, str]) -> None:
        """Note why members have no cache key; within a turn."""
        reasons = {index: reason for index, reason in without.items() if reason}
        if not reasons:
            return
        counts = self._told.setdefault(run, {})
        said = counts.get(group.id, 0)
        if not said:
            index, reason = next(iter(reasons.items()))
            logger.warning("%s is not cached: %s", group.key(index), reason)
        now = self._clock.now()
        for index, reason in list(reasons.items())[: max(0, MOST_TOLD - said)]:
            where, position = group.place(index)
            attempt, text = group.attempts[index] + 1, NOT_CACHED + reason
            run.logs.append(
                LogRow(where, position, attempt, now, logging.WARNING, ENGINE_LOGGER, text)
            )
        counts[group.id] = said + len(reasons)
        self._host.touch(run)


def _value(answer: CacheAnswer) -> Value:
    if answer.value is not None:
        return answer.value
    return StoredValue(answer.location, answer.size)


def _who(run: OpenFlowRun, answer: CacheAnswer) -> str:
    if answer.run_id == run.row.id:
        return answer.task_run
    return f"{answer.run_id[:SHORT_ID]}/{answer.task_run}"


def _source(run: OpenFlowRun, answer: CacheAnswer) -> str:
    return f"the result of {_who(run, answer)}"


def _member(run: OpenFlowRun, answer: CacheAnswer) -> tuple[Group, int] | None:
    """Return the member of this flow run that makes a result, or None for another one's."""
    if answer.run_id != run.row.id or not answer.task_run:
        return None
    name = task_name_of(answer.task_run)
    number = int(answer.task_run[len(name) + 1 : -1])
    for node in run.tracker.nodes.values():
        group = node.group
        if group.spec.name == name and group.first <= number < group.first + group.size:
            return group, number - group.first
    return None


def _fail(error: Exception) -> None:
    raise error
