"""`raysched rerun --dry-run`: what would run, and what is reused."""

from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from raysched.cli.output import console, count, noun, print_json, say
from raysched.cli.parameters import read_parameters
from raysched.cli.records import run_record
from raysched.cli.resume import Changes, Choices, check_changes, find_target
from raysched.client import get_run
from raysched.client.earlier import RerunPlan, RerunTask
from raysched.define.ports import Continuation
from raysched.model.ids import SHORT_ID

MOST_KEYS = 8
"""Task runs of one task that people see at once."""


def show_rerun(text: str, choices: Choices, changes: Changes) -> int:
    """Print what a rerun of a run would do; return the exit code.

    Raises:
        UsageError: It cannot be; see `rerun_run`.
        RunNotFound: No run, or more than one, matches.
    """
    run = get_run(text)
    check_changes(run, choices, changes)
    target = find_target(run, choices.target, "rerun")
    parameters = read_parameters(target.flow.fn, changes.pairs, changes.document)
    asked = Continuation(
        run.id, same=False, rerun_changed=choices.rerun_changed, again=changes.again
    )
    plan = run.plan_rerun(target.flow, parameters, asked)
    if choices.options.as_json:
        told = {
            "tasks": [asdict(task) for task in plan.tasks],
            "continues": plan.continues,
            "left": plan.left,
        }
        print_json({**run_record(run), "rerun": told})
        return 0
    short = run.id[:SHORT_ID]
    say(f"a rerun of {run.flow} with the results of ", (short, "cyan"), "; no task was run")
    say()
    _print_table(plan)
    if plan.continues:
        say("… and then the flow goes on by what comes out")
    if plan.left:
        rest = "may be reused then" if plan.continues else "are not called any more"
        say(f"{noun(plan.left, 'further result')} of {short} {rest}")
    asking = [key for task in plan.tasks for key in task.may_have_run]
    if asking:
        risk = f"{_keys(asking)} may have run in {short}, and must not run twice"
        say((f"{risk} (idempotent=False): --yes runs them again", "yellow"))
    return 0


def _print_table(plan: RerunPlan) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("task", overflow="fold")
    table.add_column("reused", justify="right", no_wrap=True)
    table.add_column("runs", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for task in plan.tasks:
        table.add_row(task.task, *_cells(task))
    console().print(table)


def _cells(task: RerunTask) -> list[Text]:
    return [
        Text(count(task.reused) if task.reused else ""),
        Text(count(len(task.runs)) if task.runs else ""),
        Text(_keys(task.runs), "dim"),
    ]


def _keys(keys: list[str]) -> str:
    more = ", …" if len(keys) > MOST_KEYS else ""
    return ", ".join(keys[:MOST_KEYS]) + more
