"""The commands with their options and help; what they do is in the modules that they load."""

from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer
from typer.core import TyperGroup

from raysched.cli import (
    cache_commands,
    db_commands,
    failure_commands,
    kept_ray_commands,
    run_commands,
    telemetry_commands,
)
from raysched.cli.options import (
    JsonOption,
    ParamOption,
    ParamsJsonOption,
    RunArgument,
    TargetArgument,
    examples,
)
from raysched.errors import RayschedError, UsageError
from raysched.model.states import StateType

FAILURE, BAD_USAGE = 1, 2


class _Commands(TyperGroup):
    """Turns errors of our own tree into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except RayschedError as error:
            if ctx.params.get("debug") or _debugging():
                raise
            from raysched.cli.output import say

            say(("error: ", "bold red"), str(error), stderr=True)
            raise typer.Exit(BAD_USAGE if isinstance(error, UsageError) else FAILURE) from None


def _debugging() -> bool:
    from raysched.settings import settings

    try:
        return settings().debug
    except UsageError:
        # The settings are what is wrong.
        return False


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 it went well, for run: the flow completed; 1 the flow failed, or "
    "something is broken; 2 the command cannot be right.\n\n"
    + examples("raysched run flow.py", "raysched show last", "raysched logs last"),
)

StateName = StrEnum("StateName", {state.name: state.name for state in StateType})  # type: ignore[misc]

TaskOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|KEY",
        show_default=False,
        help="Only task runs of this task, or only this one, such as parse[17].",
    ),
]
StateOption: TypeAlias = Annotated[
    list[StateName] | None,
    typer.Option(
        case_sensitive=False,
        metavar="STATE",
        show_default=False,
        help="Only this state, such as FAILED. May be given several times.",
    ),
]
LimitOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        show_default=False,
        help="At most so many, 0 for all. By default 20, with --json all.",
    ),
]
FollowOption: TypeAlias = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"raysched {version('raysched')}")
        raise typer.Exit


@app.callback()
def _raysched(
    *,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show tracebacks of raysched itself, as RAYSCHED_DEBUG=1 does."
        ),
    ] = False,
) -> None:
    """Run flows on Ray and look at what became of them."""


app.command(epilog=run_commands.RUN_EXAMPLES)(run_commands.run)
app.command(epilog=run_commands.RESUME_EXAMPLES)(run_commands.resume)
app.command(epilog=run_commands.RERUN_EXAMPLES)(run_commands.rerun)


@app.command(
    epilog=examples(
        "raysched runs --state FAILED --since 7d",
        "raysched runs --flow nightly --limit 0",
        "raysched runs --json | jq '.[0].tasks'",
    )
)
def runs(
    *,
    state: StateOption = None,
    flow: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="Only runs of this flow.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            show_default=False,
            help="Only runs that started since then: 30m, 12h, 7d, or a date or time such as "
            "2026-11-20 or 2026-11-20T08:00.",
        ),
    ] = None,
    limit: LimitOption = None,
    json: JsonOption = False,
) -> None:
    """List flow runs, the newest first."""
    from raysched.cli.runs import list_runs
    from raysched.client.delivery import tell_lost

    list_runs(_states(state), flow, since, limit, as_json=json)
    tell_lost()


@app.command(
    epilog=examples(
        "raysched show last",
        "raysched show 3f9c --state FAILED --state CRASHED",
        "raysched show last --task parse --limit 0",
        "raysched show last --task 'parse[17]'",
        "raysched show last --plan",
        "raysched show last --json | jq '.task_runs[] | select(.attempts > 1) | .key'",
    )
)
def show(
    run: RunArgument,
    *,
    task: TaskOption = None,
    state: StateOption = None,
    limit: LimitOption = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Show how it was compiled: how task runs share Ray calls, which run in another "
            "one's, and why.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show one flow run: its failures with their roots first, its tasks, its task runs."""
    from raysched.cli.show import show_run
    from raysched.client.delivery import tell_lost

    show_run(run, task, _states(state), limit, plan=plan, as_json=json)
    tell_lost()


@app.command(
    epilog=examples(
        "raysched logs last --follow",
        "raysched logs 3f9c --task parse",
        "raysched logs last --json | jq -r .message",
    )
)
def logs(
    run: RunArgument,
    *,
    follow: FollowOption = False,
    task: TaskOption = None,
    json: JsonOption = False,
) -> None:
    """Print the log records of a flow run and its task runs.

    With --json each record is one line.
    """
    from raysched.cli.logs import print_logs

    print_logs(run, task, follow=follow, as_json=json)


@app.command(
    epilog=examples(
        "raysched events last",
        "raysched events last --follow",
        """raysched events 3f9c --json | jq '.[] | select(.kind == "out of memory")'""",
    )
)
def events(
    run: RunArgument,
    *,
    follow: FollowOption = False,
    json: JsonOption = False,
) -> None:
    """Print what happened to the cluster while a flow run was open.

    Nodes that came and went, workers that died, memory that ran out, with the reasons that Ray
    gives.
    """
    from raysched.cli.events import print_events

    print_events(run, follow=follow, as_json=json)


@app.command(
    epilog=examples(
        "raysched graph flow.py --param day=2026-11-20",
        "raysched graph flow.py --format mermaid",
        "raysched graph flow.py --output flow.svg",
    )
)
def graph(
    target: TargetArgument,
    *,
    param: ParamOption = None,
    params_json: ParamsJsonOption = None,
    format: Annotated[  # noqa: A002 - the name of the option
        Literal["tree", "mermaid", "svg", "png"] | None,
        typer.Option(
            show_default=False, help="By default that of --output's ending, otherwise tree."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            help="Write here, not to the terminal.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Draw the graph of a flow before anything runs.

    The flow function is called, tasks are not.
    Where it needs a task's value to go on, the drawing ends with a mark.
    """
    from raysched.cli.graph import draw_target

    draw_target(target, tuple(param or ()), params_json, format, output, as_json=json)


app.add_typer(failure_commands.app)
app.add_typer(kept_ray_commands.app)
app.add_typer(telemetry_commands.app)
app.add_typer(db_commands.app, name="db")
app.add_typer(cache_commands.app, name="cache")


@app.command()
def doctor(
    *,
    address: Annotated[
        str | None,
        typer.Option(show_default=False, help="Ray cluster to look for, as in raysched run."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check Python, Ray, the database and the disk: what works, and what to do if not.

    The exit code is 1 if something is broken.
    """
    from raysched.cli.doctor import examine

    raise typer.Exit(examine(address, as_json=json))


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench(context: typer.Context) -> None:
    """Measure this raysched beside bare Ray, in a checkout.

    What may follow is told by raysched bench --help.
    """
    from raysched.cli.bench import run_benchmarks

    run_benchmarks(context.args)


def _states(names: "list[StateName] | None") -> tuple[StateType, ...]:
    return tuple(StateType[name.value] for name in names or ())
