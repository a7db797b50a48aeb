"""Asking the cache before task runs begin: keys, claims, and waiting for who makes a result."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from raysched.engine.cache_keys import CacheKeys, Found
from raysched.engine.callbacks import Callbacks
from raysched.engine.flow_run import OpenFlowRun
from raysched.engine.ports import Clock
from raysched.graph.calls import Member
from raysched.graph.group import Group
from raysched.model.ids import SHORT_ID, task_name_of
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

MISSED = "cache miss: "
"""How the log record of a task run begins for which there was a result that cannot be used."""

_MADE_BY = "its result is being made by "


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

    def claim(self, run: int, claims: Sequence[CacheClaim], now: int = 0) -> Sequence[CacheAnswer]:
        """See `engine.ports.Store.claim`."""


@dataclass(slots=True)
class _Asked:
    """Members of one group that ask together.

    Attributes:
        run: Their flow run.
        group: Their group.
        claims: What each of them asks for.
        told: What was told of those that others make it for.
    """

    run: OpenFlowRun
    group: Group
    claims: dict[int, CacheClaim] = field(default_factory=dict)
    told: dict[int, str] = field(default_factory=dict)

    def of(self, members: Iterable[int]) -> "_Asked":
        """Return some of them."""
        claims = {index: self.claims[index] for index in members}
        return _Asked(self.run, self.group, claims, self.told)


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
        self._watched: dict[Group, dict[int, list[_Asked]]] = {}
        self._noted: WeakKeyDictionary[OpenFlowRun, dict[int, int]] = WeakKeyDictionary()
        self._warned: WeakKeyDictionary[OpenFlowRun, set[str]] = WeakKeyDictionary()

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
            self._claim(_Asked(run, group, self._claims(group, found)), found)

    def _claims(self, group: Group, found: Found) -> dict[int, CacheClaim]:
        options, name = group.spec.cache, group.spec.name
        assert options is not None  # noqa: S101 - otherwise nobody asks
        refresh = options.refresh
        if refresh is None:
            refresh = self._host.settings.refresh_cache
        lifetime, place = options.lifetime, group.place
        return {
            index: CacheClaim(key, *place(index), name, lifetime, refresh, parts)
            for (index, key), parts in zip(found.keys.items(), found.parts.values(), strict=True)
        }

    def _claim(self, asked: _Asked, found: Found) -> None:
        claims = list(asked.claims.values())
        now = self._clock.now()
        answers = self._claiming.claim(asked.run.number, claims, now) if claims else ()
        self._host.post(self._take, asked, found, answers)

    def _take(self, asked: _Asked, found: Found, answers: Sequence[CacheAnswer]) -> None:
        """Tell the tracker what was found; within a turn."""
        run, group = asked.run, asked.group
        hits: dict[int, tuple[Value, str]] = {}
        misses = list(found.without)
        notes = {n: NOT_CACHED + reason for n, reason in found.without.items() if reason}
        if notes:
            first = next(iter(notes))
            self._warn(run, group, f"{group.key(first)} is {notes[first]}")
        makers: dict[bytes, int] = {}
        busy: dict[int, Member | None] = {}
        told: dict[int, str] = {}
        for (index, claim), answer in zip(asked.claims.items(), answers, strict=True):
            if answer.verdict is CacheVerdict.MINE:
                misses.append(index)
                makers[claim.key] = index
                if answer.run_id:
                    notes[index] = MISSED + _why_missed(run, claim, answer)
            elif answer.verdict is CacheVerdict.HIT:
                hits[index] = _value(answer), f"the result of {_who(run, answer)}"
            elif claim.key in makers:
                busy[index] = group, makers[claim.key]
                told[index] = _MADE_BY + group.key(makers[claim.key])
            else:
                busy[index] = _member(run, answer)
                told[index] = _MADE_BY + _who(run, answer)
        self._note(run, group, notes)
        news = {index: text for index, text in told.items() if asked.told.get(index) != text}
        event = CacheAnswered(group, hits, _adjacent(misses), news, found.errors)
        self._host.advance(run, event)
        if busy:
            asked.told = told
            self._wait(asked, busy)

    def _wait(self, asked: _Asked, busy: Mapping[int, Member | None]) -> None:
        """Ask again when a task run of this flow run has ended, or in a while for others'.

        Args:
            asked: Those who wait, and perhaps others.
            busy: For whom each of them waits; None for a task run of another flow run.
        """
        others, ended = [], []
        watched: dict[Member, list[int]] = {}
        for index, maker in busy.items():
            if maker is None:
                others.append(index)
            elif maker[0].is_visible(maker[1]):
                ended.append(index)
            else:
                watched.setdefault(maker, []).append(index)
        for (group, member), waiting in watched.items():
            self._watch(group, member, asked.of(waiting))
        if others:
            self._at(self._clock.now() + AGAIN_NS, self._again, asked.of(others))
        if ended:
            self._again(asked.of(ended))

    def _watch(self, group: Group, member: int, asked: _Asked) -> None:
        if group not in self._watched:
            self._watched[group] = {}
            group.watchers.append(self._ended)
        self._watched[group].setdefault(member, []).append(asked)

    def _ended(self, group: Group, indices: Iterable[int]) -> None:
        """Ask again for those who waited for these; within a turn."""
        waiting = self._watched[group]
        together: dict[Group, _Asked] = {}
        for index in indices:
            for asked in waiting.pop(index, ()):
                among = together.setdefault(asked.group, _Asked(asked.run, asked.group))
                among.claims |= asked.claims
                among.told |= {each: asked.told[each] for each in asked.claims}
        if not waiting:
            del self._watched[group]
            group.watchers.remove(self._ended)
        for asked in together.values():
            self._again(asked)

    def _again(self, asked: _Asked) -> None:
        """Ask again for those that still wait; within a turn."""
        states = asked.group.states
        waiting = asked.of([each for each in asked.claims if states[each] == StateType.PENDING])
        if waiting.claims and not asked.run.concluded:
            self._submit(asked.run, partial(self._claim, waiting, Found()))

    def _note(self, run: OpenFlowRun, group: Group, notes: Mapping[int, str]) -> None:
        """Keep in the logs of members what there is to tell of them; within a turn."""
        counts = self._noted.setdefault(run, {})
        before = counts.get(group.id, 0)
        now = self._clock.now()
        for index, text in islice(notes.items(), max(0, MOST_TOLD - before)):
            where, position = group.place(index)
            attempt = group.attempts[index] + 1
            run.batch.logs.append(
                LogRow(where, position, attempt, now, logging.INFO, ENGINE_LOGGER, text)
            )
            self._host.touch(run)
        counts[group.id] = before + len(notes)

    def _warn(self, run: OpenFlowRun, group: Group, text: str) -> None:
        """Say once for a task in a flow run that there are task runs without a key."""
        warned = self._warned.setdefault(run, set())
        if group.spec.name not in warned:
            warned.add(group.spec.name)
            logger.warning(text)


def _value(answer: CacheAnswer) -> Value:
    if answer.value is not None:
        return answer.value
    return StoredValue(answer.location, answer.size)


def _who(run: OpenFlowRun, answer: CacheAnswer) -> str:
    if answer.run_id == run.row.id:
        return answer.task_run
    return f"{answer.run_id[:SHORT_ID]}/{answer.task_run}"


def _why_missed(run: OpenFlowRun, claim: CacheClaim, answer: CacheAnswer) -> str:
    who = _who(run, answer)
    if not answer.ended:
        return f"{who} was to make the result, and has left none that can be used"
    if claim.refresh:
        return f"the result of {who} is replaced, by refresh_cache"
    made = datetime.fromtimestamp(answer.ended / 1e9, UTC).isoformat(" ", "seconds")
    return f"the result of {who}, made at {made}, has expired"


def _member(run: OpenFlowRun, answer: CacheAnswer) -> Member | None:
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


def _adjacent(indices: list[int]) -> Sequence[int]:
    """Return these members as a range, if they are one: then nobody looks at each of them."""
    if indices and indices == list(range(indices[0], indices[-1] + 1)):
        return range(indices[0], indices[-1] + 1)
    return indices


def _fail(error: Exception) -> None:
    raise error
