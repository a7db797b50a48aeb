"""Runs that never were: rows as an engine might have committed them, for properties of traces."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from raysched.model.ids import task_run_key
from raysched.model.rows import (
    AttemptRow,
    Batch,
    FlowRunChange,
    FlowRunRow,
    GroupRow,
    PlaceRow,
    TaskRunColumns,
)
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo
from raysched.telemetry.building.builder import Executions, TraceBuilder
from raysched.telemetry.reading import SpanView, read_spans

START = 1_700_000_000_000_000_000
MS = 1_000_000

Told = tuple[FlowRunRow, Batch]


@dataclass
class Outcome:
    """How a task run ended: its last row, and those of its attempts."""

    index: int
    state: StateType
    attempts: int
    started: int
    ended: int
    rows: list[AttemptRow] = field(default_factory=list)
    roots: tuple[str, ...] = ()
    again: AttemptRow | None = None

    @property
    def spans(self) -> int:
        """How many spans tell of it."""
        ran = len(self.rows) or min(1, self.attempts)
        return 1 + ran + (self.again is not None)


class History:
    """A flow run with groups, subflows, and what was called in its tasks, all from one seed.

    Args:
        seed: Decides everything.
        largest: Size of the largest groups.
        row: The flow run, if it is a subflow.
        number: Its number in the store.
    """

    def __init__(
        self, seed: int, largest: int = 8, row: FlowRunRow | None = None, number: int = 1
    ) -> None:
        self.random = random.Random(seed)
        self.largest = largest
        run_id = f"{self.random.getrandbits(128):032x}"
        self.row = row or FlowRunRow(
            run_id,
            "main",
            "calm-otter",
            StateType.RUNNING,
            started=START,
            target="dir/flow.py:main",
        )
        self.number = number
        self.now = self.row.started
        self.groups: list[GroupRow] = []
        self.outcomes: dict[int, list[Outcome]] = {}
        self.children: list[History] = []
        self.next_index: dict[str, int] = {}
        for _ in range(self.random.randint(1, 5)):
            self._call()
        self.end = self.now + self.random.randint(0, 3) * MS
        self.ended = FlowRunChange(
            self.random.choice([StateType.COMPLETED, StateType.FAILED]), "", self.end
        )

    def _call(self) -> None:
        choice = self.random.random()
        if self.groups and choice < 0.2 and not self.row.parent:
            self._subflow("")
        elif self.groups and choice < 0.5:
            self._inside(self.random.choice(self.groups))
        else:
            self._group()

    def _group(self) -> None:
        rng = self.random
        task = rng.choice(["load", "parse", "total"])
        size = rng.choice([1, 2, self.largest])
        edges: list[tuple[int, str, int, int]] = []
        needed: list[GroupRow] = []
        if self.groups and rng.random() < 0.7:
            parent = rng.choice([each for each in self.groups if not each.parent_key])
            needed.append(parent)
            kinds = {"gather": (0, parent.size), "broadcast": (0, 1), "after": (0, parent.size)}
            if parent.size == size:
                kinds["one_to_one"] = (0, 1)
            kinds["one_to_one "] = (-1, -1)
            kind = rng.choice(sorted(kinds))
            edges.append((parent.id, kind.strip(), *kinds[kind]))
        row = self._row(task, size, edges, "")
        self.outcomes[row.id] = [self._outcome(row, index, needed) for index in range(size)]

    def _row(
        self, task: str, size: int, edges: list[tuple[int, str, int, int]], key: str
    ) -> GroupRow:
        first = self.next_index.get(task, 0)
        self.next_index[task] = first + size
        self.now += MS
        row = GroupRow(
            len(self.groups),
            task,
            first,
            size,
            mapped=size > 1,
            edges=json.dumps(edges),
            parent_key=key,
            created=self.now,
        )
        self.groups.append(row)
        return row

    def _outcome(self, group: GroupRow, index: int, needed: list[GroupRow]) -> Outcome:
        rng = self.random
        failed = [
            task_run_key(parent.task, parent.first + each.index)
            for parent in needed
            for each in self.outcomes[parent.id]
            if each.state is StateType.FAILED
        ]
        if failed and rng.random() < 0.5:
            state = StateType.UPSTREAM_FAILED
            return Outcome(index, state, 0, 0, 0, roots=tuple(failed[:2]))
        how = rng.random()
        if how < 0.1:
            state = rng.choice([StateType.CACHED, StateType.SKIPPED, StateType.CANCELLED])
            at = self._tick()
            return Outcome(index, state, 0, at if state is StateType.CACHED else 0, at)
        tries = 1 if how < 0.8 else rng.randint(2, 3)
        state = StateType.COMPLETED if rng.random() < 0.8 else StateType.FAILED
        rows: list[AttemptRow] = []
        started = ended = 0
        for number in range(1, tries + 1):
            started, ended = self._tick(), self._tick()
            last = number == tries
            told = state if last else StateType.FAILED
            error = None if told is StateType.COMPLETED else _ERROR
            if error is not None or tries > 1:
                place = rng.randint(0, 2)
                rows.append(
                    AttemptRow(group.id, index, number, told, started, ended, error, place=place)
                )
        again = None
        if state is StateType.COMPLETED and rng.random() < 0.05:
            again = AttemptRow(
                group.id, index, tries + 1, state, self._tick() + MS, self._tick() + 2 * MS
            )
        return Outcome(index, state, tries, started, ended, rows, again=again)

    def _tick(self) -> int:
        self.now += self.random.randint(1, 4) * MS
        return self.now

    def _inside(self, group: GroupRow) -> None:
        """Let a task run have called a task or a flow, with a clock that may be wrong."""
        ran = [each for each in self.outcomes[group.id] if each.started and each.attempts]
        if not ran:
            return
        around = self.random.choice(ran)
        key = task_run_key(group.task, group.first + around.index)
        skew = self.random.choice([0, 0, -5, 5]) * MS
        if self.random.random() < 0.5 and not self.row.parent:
            self._subflow(key, around.started + skew)
            return
        row = self._row("helper", self.random.choice([1, 2]), [], key)
        row = self.groups[-1] = replace(row, created=around.started + skew)
        self.outcomes[row.id] = [
            Outcome(index, StateType.COMPLETED, 1, around.started + skew, around.ended + skew)
            for index in range(row.size)
        ]

    def _subflow(self, key: str, started: int = 0) -> None:
        row = FlowRunRow(
            f"{self.random.getrandbits(128):032x}",
            "sub",
            "odd-hare",
            StateType.RUNNING,
            started=started or self._tick(),
            parent=self.row.id,
            parent_key=key,
        )
        seed = self.random.getrandbits(32)
        child = History(seed, self.largest, row, self.number * 10 + len(self.children) + 1)
        self.children.append(child)
        if not key:
            self.now = max(self.now, child.end)

    @property
    def count(self) -> int:
        """How many spans there are in all."""
        own = sum(each.spans for group in self.outcomes.values() for each in group)
        return 1 + own + sum(child.count for child in self.children)

    # ---------------------------------------------------------------------------------- as batches

    def live(self, seed: int) -> Iterator[Told]:
        """Yield batches as an engine commits them: in random pieces, and what is RUNNING, too."""
        rng = random.Random(seed)
        yield self._told(flow_run=FlowRunChange(StateType.RUNNING), places=list(PLACES))
        steps: list[Iterator[Told]] = [self._live_group(group, rng) for group in self.groups]
        steps += [child.live(rng.getrandbits(32)) for child in self.children]
        known = 0
        while steps:
            chosen = rng.choice(steps)
            told = next(chosen, None)
            if told is None:
                steps.remove(chosen)
                continue
            # What is called first has its row first.
            batch = told[1]
            named = [each.group for each in batch.task_runs]
            named += [each.group for each in batch.attempts]
            last = max(named, default=-1)
            if told[0] is self.row and known <= last:
                yield self._told(groups=self.groups[known : last + 1])
                known = last + 1
            yield told
        yield self._told(flow_run=self.ended)

    def _live_group(self, group: GroupRow, rng: random.Random) -> Iterator[Told]:
        outcomes = rng.sample(self.outcomes[group.id], group.size)
        while outcomes:
            size = rng.randint(1, 10)
            part, outcomes = outcomes[:size], outcomes[size:]
            if rng.random() < 0.3:
                running = [each for each in part if each.started and each.attempts]
                columns = _columns(group, running, StateType.RUNNING)
                yield self._told(task_runs=[columns])
            early = [row for each in part for row in each.rows[:-1]]
            if early and rng.random() < 0.5:
                yield self._told(attempts=early)
                early = []
            last = [row for each in part for row in each.rows[-1:]]
            yield self._told(task_runs=[_columns(group, part)], attempts=early + last)
            again = [each for each in part if each.again is not None]
            if again:
                rows = [each.again for each in again if each.again is not None]
                told = _columns(group, again, again=True)
                yield self._told(task_runs=[told], attempts=rows)

    def replayed(self) -> Iterator[Told]:
        """Yield batches as they come from the database: by group, and by end."""
        yield self._told(flow_run=FlowRunChange(StateType.RUNNING))
        yield self._told(groups=list(self.groups))
        yield self._told(places=list(PLACES))
        for group in self.groups:
            outcomes = sorted(self.outcomes[group.id], key=lambda each: (each.ended, each.index))
            rows = [row for each in outcomes for row in (*each.rows, each.again) if row]
            told = _columns(group, outcomes, again=True)
            yield self._told(task_runs=[told], attempts=rows)
        for child in self.children:
            yield from child.replayed()
        yield self._told(flow_run=self.ended)

    def _told(self, **of: object) -> Told:
        batch = Batch(self.number)
        for name, value in of.items():
            setattr(batch, name, value)
        return self.row, batch


PLACES = (PlaceRow(1, "n1", "w1", 11, "one"), PlaceRow(2, "", "", 12, "two"))

_ERROR = ErrorInfo("builtins.ValueError", "no such thing", "Traceback: …")


def _columns(
    group: GroupRow,
    outcomes: list[Outcome],
    state: StateType | None = None,
    *,
    again: bool = False,
) -> TaskRunColumns:
    size = len(outcomes)
    return TaskRunColumns(
        group.id,
        [each.index for each in outcomes],
        [each.state if state is None else state for each in outcomes],
        [each.attempts + (again and each.again is not None) for each in outcomes],
        [each.started for each in outcomes],
        [each.ended if state is None else 0 for each in outcomes],
        [None] * size,
        [0] * size,
        roots={at: each.roots for at, each in enumerate(outcomes) if each.roots and state is None},
        places=[each.index % 3 for each in outcomes],
    )


def built(
    batches: Iterator[Told], max_spans: int, executions: Executions = Executions.LAST
) -> list[SpanView]:
    """Return the spans that a builder makes of these batches."""
    builder = TraceBuilder(max_spans, executions)
    spans: list[bytes] = []
    for row, batch in batches:
        spans += builder.take(row, batch).spans
    return read_spans(spans)
