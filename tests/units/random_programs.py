"""Random flows whose task runs do all that task runs do, and everything that is kept of them.

A program is a list of steps: calls, loops, chains and maps of tasks with different options, over
the results of earlier steps. What a task run does beside that, its *deed*, is one of its arguments.
It depends on nothing else, so that two runs differ only where they are run differently.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from raysched import (
    Cancelled,
    Failed,
    State,
    StateType,
    Task,
    TaskFuture,
    allow_failure,
    flow,
    get_run,
    get_run_logger,
    runtime,
    task,
    unmapped,
    wait,
)
from raysched.client import TaskRun

LARGE = 40_000
"""Bytes: more than what is kept in the database."""

hooked: Counter[tuple[str, str, str]] = Counter()
"""How often which hook was called: key and state of the task run, kind of the hook."""


@task
def inner(number: Any) -> int:
    """Run inside another task."""
    return int(number) + 1


def act(deed: str, *given: Any) -> Any:
    """Do it; return a number that depends on all that was given, unless the deed says otherwise."""
    key = f"{runtime.task_run.task_name} {deed}"
    number = crc32(repr((key, [_described(one) for one in given])).encode()) % 1_000_003
    attempts, error = FAILURES.get(deed, (0, ValueError))
    if runtime.task_run.run_count <= attempts:
        raise error(key)
    return RESULTS[deed](key, number, given) if deed in RESULTS else number


def _log(key: str, number: int, _given: object) -> None:
    get_run_logger().warning("%s %s", key, number)
    print(key, number)  # noqa: T201 - kept as a log record where the task says so


def _change(_key: str, number: int, given: Sequence[Any]) -> list[Any]:
    for one in given:
        if isinstance(one, list):
            one.append(number)
    return [number]


ALWAYS = 100

FAILURES: dict[str, tuple[int, type[BaseException]]] = {
    "fail": (ALWAYS, ValueError),
    "fail once": (1, KeyError),
    "fail twice": (2, OSError),
    "large once it works": (1, KeyError),
    "exit": (ALWAYS, SystemExit),
}
"""How many attempts fail, and how."""

RESULTS: dict[str, Callable[[str, int, Sequence[Any]], Any]] = {
    "large": lambda _key, number, _given: bytes([number % 256]) * LARGE,
    "large once it works": lambda _key, number, _given: bytes([number % 256]) * LARGE,
    "too late": lambda _key, _number, _given: time.sleep(60),
    "skip": lambda key, _number, _given: State(StateType.SKIPPED, message=key),
    "return Failed": lambda key, _number, _given: Failed(message=key),
    "return Cancelled": lambda key, _number, _given: Cancelled(message=key),
    "log": _log,
    "change arguments": _change,
    "call": lambda _key, number, _given: inner(number),
    "call and fail": lambda _key, _number, _given: inner("not a number"),
}
"""What comes of the others: of their key, number and arguments."""

DEEDS = sorted((FAILURES | RESULTS).keys() - {"too late"})


def _described(value: object) -> object:
    """Return what is the same in each run, and not long."""
    if isinstance(value, BaseException):
        return type(value).__name__, str(value)
    if isinstance(value, bytes):
        return crc32(value)
    if isinstance(value, list | tuple):
        return [_described(one) for one in value]
    return value


def _note(kind: str) -> Any:
    def hook(_task: object, run: Any, state: Any) -> None:
        hooked[run.key, state.name, kind] += 1

    return hook


def _may_retry(_task: object, _run: object, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), KeyError)


@task
def plain(deed: str, first: Any = None, second: Any = None) -> Any:
    """Has no options."""
    return act(deed, first, second)


@task(retries=2, log_prints=True, tags=["patient"])
def patient(deed: str, first: Any = None, second: Any = None) -> Any:
    """Is tried again."""
    return act(deed, first, second)


@task(retries=1, retry_condition_fn=_may_retry, task_run_name="asking-{deed}")
def asking(deed: str, first: Any = None, second: Any = None) -> Any:
    """Is tried again only after some failures."""
    return act(deed, first, second)


@task(
    retries=1,
    on_running=[_note("running")],
    on_completion=[_note("completion")],
    on_failure=[_note("failure")],
    on_cancellation=[_note("cancellation")],
)
def watched(deed: str, first: Any = None, second: Any = None) -> Any:
    """Has hooks of all kinds."""
    return act(deed, first, second)


@task(retries=1, timeout_seconds=1)
def timed(deed: str, first: Any = None, second: Any = None) -> Any:
    """Must not take long: the only one with `too late`."""
    return act(deed, first, second)


@task
async def waiting(deed: str, first: Any = None, second: Any = None) -> Any:
    """Overlaps with others."""
    # It cannot await what it calls, and others of its unit may not wait.
    return deed if deed in {"call", "call and fail"} else act(deed, first, second)


TASKS: tuple[Task[..., Any], ...] = (
    *(plain.with_options(name=name) for name in ("load", "clean", "join", "score", "total")),
    patient,
    patient.with_options(name="very patient", retries=3, retry_delay_seconds=0.01),
    asking,
    watched,
    timed,
    waiting,
    plain.with_options(name="alone", batch=False),
    plain.with_options(name="by two", batch_size=2),
    patient.with_options(name="in turn", max_parallel=1),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a flow.

    Attributes:
        kind: `loop` of submits, `chain` of submits, `map`; over the first of `inputs` item by item
            `each`, `submit each`, `each but the first`, or `line` of two tasks; item by item over
            two `pairs`.
        task: Position in `TASKS`.
        size: How many task runs, where they do not go over others.
        deeds: What some of them do, by position.
        inputs: Which earlier steps go in.
        waits: Which earlier steps are waited for beyond that.
        whole: Whether a further input goes in as a list, otherwise its first future alone.
        forgiving: Whether failures of the inputs are handed over.
        then: What the flow does next: nothing, `wait` for it, read its `state`, or ask for its
            `result` or its `failures`.
    """

    kind: str
    task: int
    size: int
    deeds: tuple[tuple[int, str], ...]
    inputs: tuple[int, ...]
    waits: tuple[int, ...]
    whole: bool
    forgiving: bool
    then: str


def take_step(step: Step, results: Sequence[Sequence[TaskFuture[Any]]]) -> Any:
    """Take a step of a flow; return its futures."""
    given = [results[number] for number in step.inputs]
    further = [allow_failure(x) if step.forgiving else x for x in _further(step, given)]
    after = [future for number in step.waits for future in results[number]]
    if given and step.kind not in {"loop", "map", "chain"}:
        return _go_over(step, given, further[1:], after)
    fn, deeds = TASKS[step.task], dict(step.deeds)
    does = [deeds.get(index, "ok") for index in range(step.size)]
    if step.kind == "loop":
        return [fn.submit(deed, *further, wait_for=after) for deed in does]
    if step.kind == "chain":
        return _chain(fn, does, further, forgiving=step.forgiving)
    return fn.map(does, *(unmapped(x) for x in further), wait_for=after)


def _go_over(
    step: Step,
    given: Sequence[Sequence[TaskFuture[Any]]],
    further: Sequence[Any],
    after: list[TaskFuture[Any]],
) -> Any:
    fn, deeds = TASKS[step.task], dict(step.deeds)
    over: Any = given[0]
    if step.kind == "each but the first" and len(over) > 1:
        over = over[1:]
    does = [deeds.get(index, "ok") for index in range(len(over))]
    column = allow_failure(over) if step.forgiving else over
    match step.kind:
        case "submit each":
            each = [allow_failure(one) if step.forgiving else one for one in over]
            pairs = zip(does, each, strict=True)
            return [fn.submit(deed, one, *further, wait_for=after) for deed, one in pairs]
        case "line":
            second = TASKS[(step.task + 1) % len(TASKS)]
            return [second.submit("ok", fn.submit(*pair)) for pair in zip(does, over, strict=True)]
        case "pairs" if len(given) > 1 and len(given[1]) == len(over):
            return fn.map(does, column, given[1], wait_for=after)
        case _:
            return fn.map(does, column, *(unmapped(x) for x in further), wait_for=after)


def _further(step: Step, given: Sequence[Sequence[TaskFuture[Any]]]) -> list[Any]:
    return [list(one) if step.whole else one[0] for one in given]


def _chain(
    fn: Task[..., Any], does: Sequence[str], first: Sequence[Any], *, forgiving: bool
) -> list[TaskFuture[Any]]:
    futures: list[TaskFuture[Any]] = []
    for deed in does:
        before = [allow_failure(futures[-1]) if forgiving else futures[-1]] if futures else first
        futures.append(fn.submit(deed, *before))
    return futures


@dataclass(frozen=True)
class Story:
    """All that is kept of a run, but for times and ids, and what its flow function saw."""

    flow: Any
    seen: Any
    task_runs: Any
    inside: Any
    hooks: Any


def play(steps: Sequence[Step], *, raising: bool) -> Story:
    """Run a flow that takes these steps; return its story.

    Args:
        steps: The steps.
        raising: Whether it raises when all have ended.
    """
    hooked.clear()
    seen: list[object] = []

    @flow(name="random")
    def program() -> int:
        results: list[Any] = []
        for step in steps:
            futures = take_step(step, results)
            results.append(futures)
            _look(step.then, futures, seen)
        wait([future for futures in results for future in futures])
        seen.append("all have ended")
        if raising:
            raise RuntimeError("raised")
        return len(results)

    state = program(return_state=True)
    # Whatever ends a flow here, it is no mistake of this module.
    assert seen[-1:] == ["all have ended"]
    run = get_run("last")
    outcome = state.result(raise_on_failure=False)
    return Story(
        (state.type, state.message, _described(outcome), run.message, run.error, run.counts),
        seen,
        {one.key: _kept(one) for one in run.task_runs() if one.task != inner.name},
        # They are numbered in the order in which they come home.
        Counter((one.state.type, repr(_value(one))) for one in run.task_runs(task=inner.name)),
        dict(hooked),
    )


def _look(then: str, futures: Sequence[TaskFuture[Any]], seen: list[object]) -> None:
    match then:
        case "wait":
            wait(futures)
            seen.append([future.state.type for future in futures[:1]])
        case "state":
            futures[-1].wait()
            seen.append(futures[-1].state.type)
        case "result":
            try:
                seen.append(_described(futures[0].result()))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - is compared
                seen.append(_described(error))
        case "failures":
            seen.append(_described([x.result(raise_on_failure=False) for x in futures]))
        case _:
            pass


def _kept(run: TaskRun) -> Any:
    state = run.state
    error = run.error
    return {
        "state": (state.type, state.message),
        "name": run.name,
        "attempts": run.attempts,
        "began": run.started is not None,
        "error": error and (error.type, error.message, error.failure_class, error.kind),
        "evidence": error and (error.traceback, bool(error.exception)),
        "roots": run.roots,
        "handled": run.handled,
        "tags": run.tags,
        "history": [
            (row.attempt, row.state, row.error and row.error.message, row.stop_reason)
            for row in run.history
        ],
        "logs": [(log.attempt, log.level, log.logger, log.message) for log in run.logs],
        "value": _value(run),
    }


def _value(run: TaskRun) -> object:
    if run.state.type is not StateType.COMPLETED:
        return None
    try:
        return _described(run.result())
    except Exception as error:  # noqa: BLE001 - a large one is not kept
        return _described(error)
