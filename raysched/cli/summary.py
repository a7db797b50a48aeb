"""What became of a run, for people: failures with their roots first, and counts by task."""

import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from raysched.cli.go_on import print_go_on
from raysched.cli.output import (
    STYLES,
    console,
    count,
    duration,
    noun,
    say,
)
from raysched.cli.why_words import plain
from raysched.client import OWN_FAILURES, Run, TaskRun, describe_error
from raysched.model.ids import SHORT_ID
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import ErrorInfo, FailureClass

if TYPE_CHECKING:
    from raysched.client.trace import RunTrace, Waterfall

MOST_FAILURES = 5
"""Failures, or kinds of them, that are described one by one."""

MOST_LOOKED_AT = 1000
"""Failures among which the one is looked for that the flow function raised."""

MOST_NAMES = 4
"""Task runs that are named because they failed like another one."""

MOST_REASONS = 5
"""Reasons of skips that people see at once."""

MOST_STATES = 5
"""States with a column of their own; a table with more would not fit 80 columns."""

MOST_MESSAGE_LINES = 8
"""Lines of an exception's message that people see at once."""

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
"""Directories of code that is not the user's."""

FRAME = re.compile(
    r'^  File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)\n(?:    (?P<code>.+))?',
    re.MULTILINE,
)

MARKS = {
    StateType.COMPLETED: "✔",
    StateType.CANCELLED: "■",
    StateType.CANCELLING: "■",
    StateType.RUNNING: "▶",
}


def print_summary(run: Run, returned: str, tell: Callable[[Run], None] | None = None) -> None:
    """Print how a run ended, what it returned, if something, and what to type next.

    Args:
        run: The run.
        returned: What the flow returned, or "".
        tell: Prints what else there is to say of how it went.
    """
    print_outcome(run)
    if returned:
        say(("returned ", "dim"), returned)
    if tell is not None:
        tell(run)
    print_failures(run)
    print_remarks(run)
    print_tasks(run)
    say()
    say(("run   ", "dim"), run.id)
    print_trace(run.trace)
    if run.state.is_completed():
        say(("next  ", "dim"), "raysched show last   raysched logs last")
        return
    say(("next  ", "dim"), "raysched why last   raysched show last   raysched logs last")
    print_go_on(run)


def print_trace(trace: "RunTrace | Waterfall") -> None:
    """Print where people find a trace, if it was exported."""
    where = trace.url or trace.trace_id
    if where:
        say(("trace: ", "dim"), where)


def print_outcome(run: Run, *, stderr: bool = False) -> None:
    """Print flow, state, duration and message in one line."""
    state = run.state.type
    took = duration((run.ended - run.started).total_seconds()) if run.started and run.ended else ""
    say(
        (f"{MARKS.get(state, '✘')} ", STYLES[state]),
        (run.flow, "bold"),
        (f" {run.id[:SHORT_ID]} ", "cyan"),
        (state.name, STYLES[state]),
        f" in {took}" if took else "",
        f": {_first_line(run.message)}" if run.message else "",
        stderr=stderr,
    )


def print_failures(run: Run) -> None:
    """Print what failed itself, the flow function too, and how many task runs only followed."""
    children = [child for child in run.children if child.state.type in OWN_FAILURES]
    if run.error is not None and run.state.is_failed() and not _is_told(run, run.error, children):
        _print_title(run.flow, f"{run.state.type.name}, in the flow function", "red")
        _print_error(run.error)
    kinds = run.failure_kinds
    for kind in kinds[:MOST_FAILURES]:
        first, *others = kind.some(run, 1 + MOST_NAMES)
        print_task_run(run, first)
        if kind.count > 1:
            names = ", ".join(other.key for other in others)
            more = ", …" if kind.count > 1 + len(others) else ""
            say((f"  and {kind.count - 1:,} more like it: {names}{more}", "red"))
    rest = sum(kind.count for kind in kinds[MOST_FAILURES:])
    if rest:
        say()
        states = "".join(f" --state {state.name}" for state in OWN_FAILURES if state in run.counts)
        command = f"raysched show {run.id[:SHORT_ID]}{states}"
        say((f"… and {rest:,} more failed themselves: {command}", "dim"))
    for missed in run.shortfalls:
        told = f"{missed.succeeded:,} of {missed.size:,} succeeded"
        say()
        say((f"{missed.task}: {told}, and min_success asks for {missed.needed:,}", "red"))
    _print_followers(run)
    for child in children[:MOST_FAILURES]:
        say()
        print_outcome(child)
        print_failures(child)
    if len(children) > MOST_FAILURES:
        say()
        say((f"… and {noun(len(children) - MOST_FAILURES, 'subflow')} more failed", "dim"))


def print_task_run(run: Run, task_run: TaskRun) -> None:
    """Print how a task run of a run ended, and first what its fallback was called for."""
    error, before = task_run.error, task_run.before_fallback
    _print_title(_title(task_run), _status(run, task_run), STYLES[task_run.state.type])
    first = task_run.attempts if before is None else before.attempt + 1
    last = task_run.attempts
    if before is not None and before.error is not None and first <= last:
        _print_error(before.error)
        which = f"attempt {last} was" if first == last else f"attempts {first} to {last} were"
        failed = ", which failed too:" if error is not None else ""
        say((f"  {which} its fallback{failed}", "red"))
    if error is not None:
        _print_error(error)
    if task_run.reason:
        say(f"  {plain(task_run.reason)}")
    elif task_run.roots:
        say(f"  because of {', '.join(task_run.roots)}")


def print_tasks(run: Run) -> None:
    """Print a table of tasks with the number of task runs in each state."""
    counts = run.task_counts
    if not counts:
        return
    totals = run.counts
    common = sorted(totals, key=lambda state: -totals[state])[:MOST_STATES]
    states = [state for state in StateType if state in common]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("task", overflow="fold")
    table.add_column("runs", justify="right")
    for state in states:
        table.add_column(state.name.lower().replace("_", " "), justify="right", min_width=5)
    with_others = len(totals) > len(states)
    if with_others:
        table.add_column("other", justify="right")
    for task, by_state in counts.items():
        table.add_row(task, *_cells(by_state, states, with_others=with_others))
    if len(counts) > 1:
        table.add_row(Text("all", "dim"), *_cells(totals, states, with_others=with_others))
    say()
    console().print(table)


def _cells(
    counts: Mapping[StateType, int], states: Sequence[StateType], *, with_others: bool
) -> list[Text]:
    cells = [Text(count(sum(counts.values())))]
    cells += [Text(count(counts[s]) if counts.get(s) else "", STYLES[s]) for s in states]
    if with_others:
        others = sum(number for state, number in counts.items() if state not in states)
        cells.append(Text(count(others) if others else ""))
    return cells


def _is_told(run: Run, error: ErrorInfo, children: Sequence[Run]) -> bool:
    """Whether the flow function only raised what failures of task runs or subflows say already."""
    if error.failure_class in {FailureClass.UPSTREAM, FailureClass.CANCELLED}:
        return True
    failures = run.task_runs(states=OWN_FAILURES, limit=MOST_LOOKED_AT)
    others = [failure.error for failure in failures] + [child.error for child in children]
    if error.type.startswith("raysched.errors.") and others:
        return True
    told = {(other.type, other.message) for other in others if other is not None}
    return (error.type, error.message) in told


def _title(task_run: TaskRun) -> str:
    key, name = task_run.key, task_run.name
    return key if name == key else plain(f"{key} ({name})")


def _status(run: Run, task_run: TaskRun) -> str:
    state = task_run.state.type
    attempts = f" after {noun(task_run.attempts, 'attempt')}" if task_run.attempts > 1 else ""
    # Of a run that failed, "handled" would only say that the flow was told before it raised.
    told = task_run.handled and state not in SUCCESSES and run.state.is_completed()
    handled = ", handled by the flow" if told else ""
    undone = ", rolled back" if task_run.rolled_back else ""
    return f"{state.name}{attempts}{handled}{undone}"


def _last_frame(error: ErrorInfo) -> re.Match[str] | None:
    """Return where the user's code stood: the innermost frame that is not in a library."""
    frames = list(FRAME.finditer(error.traceback))
    own = [frame for frame in frames if not frame["file"].startswith(LIBRARIES)]
    return (own or frames)[-1] if frames else None


def _print_title(name: str, status: str, style: str) -> None:
    say()
    say((name, "bold"), (f"  {status}", style))


def _print_error(error: ErrorInfo) -> None:
    lines = plain(describe_error(error)).splitlines()
    if len(lines) > MOST_MESSAGE_LINES:
        lines = [*lines[: MOST_MESSAGE_LINES - 1], "…"]
    for line in lines:
        say(f"  {line}")
    frame = _last_frame(error)
    if frame is not None:
        say((f"  {_shown(frame['file'])}:{frame['line']} in {frame['name']}", "dim"))
        if frame["code"]:
            say((f"    {plain(frame['code'].strip())}", "dim"))


def _print_followers(run: Run) -> None:
    followers = Counter(
        {task: counts.get(StateType.UPSTREAM_FAILED, 0) for task, counts in run.task_counts.items()}
    )
    stopped: dict[str, Counter[str]] = {}
    for remark in run.remarks:
        if remark.state is StateType.UPSTREAM_FAILED:
            stopped.setdefault(remark.reason, Counter())[remark.task] += remark.count
            followers[remark.task] -= remark.count
    style = STYLES[StateType.UPSTREAM_FAILED]
    _print_number("never ran because of that", followers, style)
    for reason, tasks in stopped.items():
        _print_number("never ran", tasks, style, f" ({reason})")


def print_remarks(run: Run) -> None:
    """Print what took the place of failures, what was undone because of them, and what skipped."""
    fell_back: Counter[str] = Counter()
    rolled_back: Counter[str] = Counter()
    for remark in run.remarks:
        if remark.rolled_back:
            rolled_back[remark.task] += remark.count
        elif remark.handled and remark.state is StateType.COMPLETED:
            fell_back[remark.task] += remark.count
    _print_number("completed by their fallback", fell_back, "yellow")
    _print_number("rolled back: what they did was undone", rolled_back, "yellow")
    _print_skipped(run)


def _print_skipped(run: Run) -> None:
    by_task = {task: counts.get(StateType.SKIPPED, 0) for task, counts in run.task_counts.items()}
    _print_number("skipped", Counter(by_task), STYLES[StateType.SKIPPED])
    reasons = [each for each in run.remarks if each.state is StateType.SKIPPED and each.reason]
    for each in reasons[:MOST_REASONS]:
        say((f"  {each.task} {each.count:,}: {_first_line(each.reason)}", "dim"))
    if len(reasons) > MOST_REASONS:
        command = f"raysched show {run.id[:SHORT_ID]} --state {StateType.SKIPPED.name}"
        say((f"  … and {len(reasons) - MOST_REASONS:,} more reasons: {command}", "dim"))


def _print_number(what: str, by_task: Counter[str], style: str, remark: str = "") -> None:
    number = by_task.total()
    if number:
        tasks = ", ".join(f"{task} {each:,}" for task, each in by_task.items() if each)
        say()
        say((f"{noun(number, 'task run')} {what}: {tasks}{remark}", style))


def _first_line(text: str) -> str:
    first, *rest = plain(text).splitlines() or [""]
    return f"{first} …" if rest else first


def _shown(file: str) -> str:
    """Return a path as it would be typed here."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
