"""What `raysched why` tells about a flow run, as plain data.

Times are aware datetimes in UTC, or None where there is none; texts are as they were kept, uncut.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from raysched.client.advice_case import Advice
from raysched.client.shortfalls import Shortfall
from raysched.client.why_driver import Loss
from raysched.client.why_held import Held
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, FailureClass, Frame


@dataclass(frozen=True, slots=True)
class Where:
    """Where an attempt ran; "" and 0 for what is not known."""

    host: str = ""
    pid: int = 0
    node_id: str = ""
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class Try:
    """An attempt of a task run.

    Attributes:
        number: From 1.
        state: How it ended.
        failure_class: Who is to blame, or None if it succeeded.
        kind: `CrashKind` or `TimeoutKind` value, or "".
        started: When it began.
        seconds: How long it took, or None where that is not known.
        where: Where it ran.
        said: Class and message of its exception.
        decision: Why it was not tried again after this one, or `tried again`.
        asked: What it asked Ray for, where attempts differ in that: texts by option.
    """

    number: int
    state: StateType
    failure_class: FailureClass | None
    kind: str
    started: datetime | None
    seconds: float | None
    where: Where
    said: str
    decision: str
    asked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stop:
    """Why task runs were not tried again, how many of them, and the first one's key."""

    reason: str
    count: int
    key: str


@dataclass(frozen=True, slots=True)
class Source:
    """The user's line that failed.

    Attributes:
        file: Path, as the worker had it.
        line: Number of the line, from 1.
        function: Name of the function.
        lines: `(number, text)` of it and some around it; where the file is not here, or another
            line stands there now, only what the traceback kept, if anything.
        remark: Why there is nothing around it, or that the file was changed since the run; or "".
    """

    file: str
    line: int
    function: str
    lines: tuple[tuple[int, str], ...]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of the failed attempt, as text with secrets masked; see `values.Input`."""

    name: str
    preview: str
    type: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that is known beside the exception: `signal`, `SIGSEGV`."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A log record; `level` is the number of `logging`."""

    at: datetime | None
    level: int
    logger: str
    message: str


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened on the cluster, or to raysched itself, shortly before a failure.

    Attributes:
        at: When.
        run: Id of the flow run that it happened to.
        flow: Name of its flow.
        key: Key of the task run, or "" for the run itself.
        text: What.
    """

    at: datetime | None
    run: str
    flow: str
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Seen:
    """How often attempts failed with one fingerprint, over all runs that are kept.

    Attributes:
        first: When the first one began.
        first_run: Id of its run, "" where that is not known.
        last: When the last one began.
        attempts: How many.
        runs: In how many runs.
    """

    first: datetime | None
    first_run: str
    last: datetime | None
    attempts: int
    runs: int


@dataclass(frozen=True, slots=True)
class Cause:
    """Failures with one innermost cause, told by the first of them.

    Attributes:
        number: From 1, in the order in which they are told.
        task: Name of the task of the first one, or "" for the flow function itself.
        key: The first one's key, for example `load[17]`; "" for the flow function.
        name: Its rendered `task_run_name`, or the key.
        map_index: Its position in its map, or None where it was a single call.
        map_size: Size of that map, or 0.
        by_task: Number of these failures by task.
        keys: Keys of the first ones.
        handled: How many of them the flow handled.
        teardown: Whether it is a teardown task, whose failure never fails the run.
        victims: Number of task runs by task that did not run because of them.
        state: How the first one ended.
        error: Of its last attempt, as it was kept; what follows is taken from it.
        failure_class: Who is to blame.
        kind: `CrashKind` or `TimeoutKind` value, or "".
        type: Class of the exception, as in tracebacks.
        message: Its text; without an exception, why it ended so.
        fingerprint: What these failures have in common, or "".
        traceback: Traceback with causes, or "".
        frames: Frames of the innermost cause, outermost first.
        source: The user's line that failed, or None where there is no such line.
        attempts: Attempts of the first one; those that went well at once have none.
        attempts_begun: How many it had.
        stopped: Why retrying stopped, or "".
        stops: The same of all of them, where they differ in it.
        before_fallback: Of one whose fallback was called and failed, too: the attempt before that.
        evidence: What else is known.
        arguments: Of the last attempt.
        logs: Its last log records.
        before: What happened in the minute before it ended, in order.
        seen: How often it was seen, or None without a fingerprint.
        owner: Who to turn to, or "".
        runbook: URL or text that says what to do, or "".
        advice: Policies that would have helped.
    """

    number: int
    task: str
    key: str
    name: str
    map_index: int | None
    map_size: int
    by_task: Mapping[str, int]
    keys: tuple[str, ...]
    handled: int
    teardown: bool
    victims: Mapping[str, int]
    state: StateType
    error: ErrorInfo
    failure_class: FailureClass
    kind: str
    type: str
    message: str
    fingerprint: str
    traceback: str
    frames: tuple[Frame, ...]
    source: Source | None
    attempts: tuple[Try, ...]
    attempts_begun: int
    stopped: str
    stops: tuple[Stop, ...]
    before_fallback: Try | None
    evidence: tuple[Evidence, ...]
    arguments: tuple[Argument, ...]
    logs: tuple[Line, ...]
    before: tuple[Happening, ...]
    seen: Seen | None
    owner: str
    runbook: str
    advice: tuple[Advice, ...]

    @property
    def count(self) -> int:
        """Number of these failures."""
        return sum(self.by_task.values()) or 1

    @property
    def title(self) -> str:
        """What failed, for people: `load[17]`, or `the flow function`."""
        return self.key or "the flow function"

    @property
    def said(self) -> str:
        """Class and message of the exception, as the last line of its traceback."""
        return ": ".join(filter(None, (self.type, self.message)))


@dataclass(frozen=True, slots=True)
class Node:
    """A group of task runs in the part of the graph between roots and victims.

    Attributes:
        id: Id of the group.
        task: Name of the task.
        first: Index of its first task run among those of the task.
        size: Number of its task runs.
        failed: How many failed themselves.
        not_run: How many did not run because of failures.
    """

    id: int
    task: str
    first: int
    size: int
    failed: int = 0
    not_run: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """How one node depends on another.

    Attributes:
        parent: Id of the group that is needed.
        child: Id of the group that needs it.
        words: How, as `raysched graph` says it: `each`, `all`, `[1]`, `after`; () for the value.
    """

    parent: int
    child: int
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """The smallest part of the graph from roots to victims.

    Attributes:
        nodes: Groups in the order of their calls.
        links: The dependencies between them.
    """

    nodes: tuple[Node, ...] = ()
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Something that differs from the last success: what, then, and now."""

    what: str
    before: str
    now: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs from the last run of the flow that completed before this one.

    Attributes:
        run: Id of that run.
        ended: When it ended.
        changes: The differences.
        unknown: What may differ without being seen, for people.
    """

    run: str
    ended: datetime | None
    changes: tuple[Change, ...]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A command that may come next, and what it is for."""

    command: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Why:
    """Why a flow run ended as it did.

    Attributes:
        run: Its id.
        flow: Name of the flow.
        name: Name of the run.
        state: Its state.
        message: Why it is in its state, as it was kept.
        started: When it started.
        ended: When it ended.
        target: What was run: `/home/me/flow.py:nightly`, or "".
        backend: Where it ran.
        verdict: What happened, in a line.
        counts: Number of task runs by state.
        failures: How many failed themselves.
        handled: How many of these the flow handled.
        not_run: How many did not run because of failures.
        skipped: How many were skipped.
        rolled_back: How many completed and were undone.
        kept: How many results are kept in the database, without those that were undone.
        reasons: Why task runs ended without an attempt, with how many there are.
        causes: Failures by their innermost cause, first what nobody handled.
        more_causes: How many causes there are beyond these.
        part: The part of the graph that is concerned.
        comparison: What differs from the last success, or None if there was none.
        steps: What may be done next.
        subflows: The same of subflows that did not end well.
        key: Key of the task run that this is about, or "" if it is about the whole run.
        held: What was open when the run was stopped by a person or its limit of time.
        place: Where the flow function was then, or None where that is not known.
        loss: Of a run whose driver died, what is known of that; None of others.
        shortfalls: Maps that missed their `min_success`.
        cache: What the cache had to do with the task run that this is about, or "".
    """

    run: str
    flow: str
    name: str
    state: StateType
    message: str
    started: datetime | None
    ended: datetime | None
    target: str
    backend: str
    verdict: str
    counts: Mapping[StateType, int]
    failures: int = 0
    handled: int = 0
    not_run: int = 0
    skipped: int = 0
    rolled_back: int = 0
    kept: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    causes: tuple[Cause, ...] = ()
    more_causes: int = 0
    part: Part = field(default_factory=Part)
    comparison: Comparison | None = None
    steps: tuple[Step, ...] = ()
    subflows: "tuple[Why, ...]" = ()
    key: str = ""
    held: tuple[Held, ...] = ()
    place: Frame | None = None
    loss: Loss | None = None
    shortfalls: tuple[Shortfall, ...] = ()
    cache: str = ""
