"""`raysched show --plan`: how a flow was compiled, and what came of it."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import islice

from rich.table import Table
from rich.text import Text

from raysched.cli.output import DEFAULT_LIMIT, console, noun, print_json, say
from raysched.cli.records import plan_record, run_record
from raysched.cli.summary import print_outcome
from raysched.client import Cut, GroupPlan, Run

USUAL_CLASS = "num_cpus=1, as Ray's tasks by default"


def show_plan(run: Run, task: str | None, limit: int | None, *, as_json: bool) -> None:
    """Print how the groups of a run were planned.

    Args:
        run: The run.
        task: Only groups of this task.
        limit: At most so many groups, for people so many that differ; 0 for all, None for a
            screenful (as JSON: all).
        as_json: Whether to print JSON.
    """
    plan = run.plan
    wanted = [group for group in plan if task is None or group.task == task]
    most = limit or None if limit is not None or as_json else DEFAULT_LIMIT
    if as_json:
        print_json({**run_record(run), "plan": [plan_record(group) for group in wanted[:most]]})
        return
    print_outcome(run)
    tasks = {group.group: group.task for group in plan}
    alike: dict[Hashable, list[GroupPlan]] = {}
    for group in wanted:
        alike.setdefault(_kind(group, tasks), []).append(group)
    for groups in islice(alike.values(), most):
        say()
        _print_groups(groups, tasks)
    if most is not None and len(alike) > most:
        say()
        say((f"… and {len(alike) - most:,} more (--limit 0 for all)", "dim"))


def _kind(group: GroupPlan, tasks: Mapping[int, str]) -> Hashable:
    """Return what groups that people see as one have in common."""
    return (
        group.task,
        group.mapped,
        bool(group.parent_key),
        tuple(sorted(group.scheduling_class.items())),
        group.cut,
        group.unit_size,
        group.max_parallel,
        tasks.get(group.fused_behind) if group.fused_behind is not None else None,
        group.notes,
    )


def _print_groups(groups: Sequence[GroupPlan], tasks: Mapping[int, str]) -> None:
    first = groups[0]
    placing = ", ".join(f"{name}={value}" for name, value in first.scheduling_class.items())
    rows = {
        "inside": first.parent_key if len(groups) == 1 else "",
        "needs": placing or USUAL_CLASS,
        "units": _units(first, tasks),
        "took": _took(groups),
        "because": "\n".join(first.notes),
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(f"  {name}", Text(value))
    say((_name(groups), "bold"), (f"  {_size(groups)}", "dim"))
    console().print(table)


def _name(groups: Sequence[GroupPlan]) -> str:
    first, *others = groups
    if others:
        return first.task
    last = first.first + first.size - 1
    return (
        f"{first.task}[{first.first}]" if first.size == 1 else f"{first.task}[{first.first}…{last}]"
    )


def _size(groups: Sequence[GroupPlan]) -> str:
    runs = noun(sum(group.size for group in groups), "task run")
    if len(groups) > 1:
        return f"{runs} in {noun(len(groups), 'map' if groups[0].mapped else 'group')}"
    return f"{runs} of a map" if groups[0].mapped else runs


def _units(group: GroupPlan, tasks: Mapping[int, str]) -> str:
    most = noun(group.unit_size or 0, "task run")
    match group.cut:
        case Cut.ADAPTIVE:
            return f"adaptive, up to {most} each"
        case Cut.FIXED:
            return f"of {most} each"
        case Cut.SINGLE:
            return "of one task run each"
        case Cut.OVERLAPPING:
            return f"{'of' if group.fixed else 'up to'} {most} each, which overlap"
        case Cut.FUSED:
            behind = tasks.get(group.fused_behind or 0, "another task")
            return f"those of {behind}: each runs right after the one that it needs"
        case Cut.UNKNOWN:
            return "not kept"


def _took(groups: Sequence[GroupPlan]) -> str:
    if any(group.units is None for group in groups):
        return ""
    number = sum(group.units or 0 for group in groups)
    if groups[0].cut is Cut.FUSED:
        return f"{noun(number, 'unit')} for the others"
    if not number:
        return "no unit"
    mean = sum(group.size for group in groups) / number
    return f"{noun(number, 'unit')}, {mean:,.1f} task runs each on average"
