"""`raysched show`."""

from itertools import islice

from rich.table import Table
from rich.text import Text

from raysched.cli.go_on import print_go_on
from raysched.cli.output import (
    DEFAULT_LIMIT,
    console,
    duration,
    local_time,
    noun,
    print_json_list,
    say,
    state_text,
)
from raysched.cli.plan import show_plan
from raysched.cli.records import run_record, task_run_record
from raysched.cli.summary import print_failures, print_outcome, print_remarks, print_tasks
from raysched.cli.task_run import history_record, show_task_run
from raysched.cli.why_words import driver_text, plain
from raysched.client import Run, TaskRun, describe_error, get_run, utc
from raysched.errors import UsageError
from raysched.model.ids import SHORT_ID
from raysched.model.records import Kept
from raysched.model.states import SUCCESSES, StateType

MOST_PARAMETERS = 300
"""Characters of the parameters that people see at once."""


def show_run(
    text: str,
    task: str | None,
    states: tuple[StateType, ...],
    limit: int | None,
    *,
    plan: bool,
    as_json: bool,
) -> None:
    """Print one flow run.

    Args:
        text: RUN.
        task: Only task runs of this task; or the key of one task run, which is told with its
            attempts.
        states: Only task runs in one of these states, or in any if empty.
        limit: At most so many task runs, 0 for all, None for a screenful (as JSON: all).
        plan: Whether to print how it was planned, instead of what became of it.
        as_json: Whether to print JSON.

    Raises:
        UsageError: The run has no such task or task run, or `states` came with `plan` or a key.
        RunNotFound: No run, or more than one, matches.
    """
    run = get_run(text)
    one = None if task is None or task in run else run.task_run(task)
    if one is not None:
        task = one.task
    if plan and states:
        raise UsageError("--state: chooses task runs, which --plan does not show; leave one out")
    if plan:
        show_plan(run, task, limit, as_json=as_json)
        return
    if one is not None:
        if states:
            raise UsageError(
                "--state: chooses among task runs, but --task names one; leave one out"
            )
        _show_one(run, one, as_json=as_json)
        return
    most = limit or None if limit is not None or as_json else DEFAULT_LIMIT
    if as_json:
        found = run.task_runs(task=task, states=states, limit=most)
        print_json_list(map(task_run_record, found), run_record(run))
        return
    if task is None and not states:
        _print_head(run)
        print_failures(run)
        print_remarks(run)
        print_tasks(run)
        _print_why(run)
    else:
        print_outcome(run)
    _print_task_runs(run, task, states, most)


def _show_one(run: Run, task_run: TaskRun, *, as_json: bool) -> None:
    if as_json:
        print_json_list([history_record(task_run)], run_record(run))
        return
    print_outcome(run)
    show_task_run(run, task_run)


def _print_head(run: Run) -> None:
    print_outcome(run)
    parameters = ", ".join(f"{name}={value!r}" for name, value in run.parameters.items())
    if len(parameters) > MOST_PARAMETERS:
        parameters = f"{parameters[:MOST_PARAMETERS]}…"
    rows = {
        "run": run.id,
        "name": run.name,
        "started": local_time(run.started),
        "parameters": parameters,
        "tags": ", ".join(run.tags),
        "target": run.target,
        "backend": run.backend,
        "key": run.key,
        "driver": "" if (driver := run.lost_driver) is None else driver_text(driver),
        "begun": f"{run.run_count} times" if run.run_count > 1 else "",
        "reuses": f"results of {run.rerun_of}" if run.rerun_of else "",
        "part of": run.parent,
        "late": f"{noun(run.late, 'report')} of attempts that were over, refused"
        if run.late
        else "",
        "trace": run.trace.url or run.trace.trace_id,
        "subflows": ", ".join(child.id[:SHORT_ID] for child in islice(run.children, 5)),
        "warning": "" if run.state.is_final() else _last_warning(run),
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    console().print(table)


def _last_warning(run: Run) -> str:
    """Return what raysched itself has said last of an open run: what it waits for."""
    said = run.logs(logger="raysched")
    return f"{local_time(utc(said[-1].at))}  {said[-1].message}" if said else ""


def _print_why(run: Run) -> None:
    """Print which command tells more of a run that did not end well, or does not end."""
    if not run.state.is_completed():
        waiting = "" if run.state.is_final() else "--waiting "
        say()
        say(("why   ", "dim"), f"raysched why {waiting}{run.id[:SHORT_ID]}")
        if run.state.is_final() and not run.parent:
            print_go_on(run)


def _print_task_runs(
    run: Run, task: str | None, states: tuple[StateType, ...], most: int | None
) -> None:
    total = _number(run, task, states)
    if not total:
        if task is not None or states:
            say("No such task runs.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("task run", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("tries", justify="right")
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    shown = 0
    for each in run.task_runs(task=task, states=states, limit=most):
        table.add_row(*_cells(each))
        shown += 1
    say()
    console().print(table)
    if shown < total:
        say((f"… and {total - shown:,} more (--limit 0 for all)", "dim"))


def _cells(task_run: TaskRun) -> list[Text]:
    remark = ""
    if task_run.reason:
        remark = task_run.reason
    elif task_run.error is not None:
        remark = next(iter(describe_error(task_run.error).splitlines()), "")
    elif task_run.roots:
        remark = f"because of {', '.join(task_run.roots)}"
    elif task_run.name != task_run.key:
        remark = task_run.name
    elif task_run.state.type in SUCCESSES and task_run.kept is Kept.NOTHING:
        remark = "value not kept"
    return [
        Text(task_run.key),
        _state(task_run),
        Text(str(task_run.attempts) if task_run.attempts else ""),
        Text("" if task_run.seconds is None else duration(task_run.seconds)),
        Text(plain(remark), "dim"),
    ]


def _state(task_run: TaskRun) -> Text:
    text = state_text(task_run.state.type)
    if task_run.rolled_back:
        text.append(", rolled back", "yellow")
    return text


def _number(run: Run, task: str | None, states: tuple[StateType, ...]) -> int:
    counts = run.counts if task is None else run.task_counts[task]
    return sum(number for state, number in counts.items() if not states or state in states)
