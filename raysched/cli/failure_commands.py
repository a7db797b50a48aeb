"""The commands for runs that do not go as they should, with their options and help."""

from pathlib import Path
from typing import Annotated

import typer

from raysched.cli.options import JsonOption, RunArgument, examples

app = typer.Typer()


@app.command(
    epilog=examples(
        "raysched why last",
        "raysched why 3f9c 'parse[17]'",
        "raysched why --waiting 3f9c",
        "raysched why 3f9c --html why.html",
        "raysched why last --json | jq -r .verdict",
    )
)
def why(
    run: RunArgument,
    key: Annotated[
        str,
        typer.Argument(
            metavar="[KEY]", show_default=False, help="Only of this task run, such as parse[17]."
        ),
    ] = "",
    *,
    waiting: Annotated[
        bool, typer.Option("--waiting", "-w", help="Show what an open run waits for.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Write a page that needs nothing else: no script, no network.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show why a flow run failed: where, with what evidence, and what would help.

    With --waiting: for each group of task runs what it waits for, and for how long.
    """
    from raysched.cli.why import explain_run
    from raysched.client.delivery import tell_lost

    explain_run(run, key, html, waiting=waiting, as_json=json)
    tell_lost()


@app.command(
    epilog=examples(
        "raysched cancel last",
        "raysched cancel 3f9c --task-run 'parse[17]'",
        "raysched cancel 3f9c --force",
    )
)
def cancel(
    run: RunArgument,
    *,
    task_run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            show_default=False,
            help="Only this task run, such as parse[17]. May be given several times.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", "-f", help="Without time to clean up: end the workers with what they run."
        ),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
    json: JsonOption = False,
) -> None:
    """Cancel a flow run that goes on in another terminal or on another machine.

    Nothing new begins, what runs is interrupted and may clean up.
    The exit code is 0 when it was cancelled. Ctrl-C ends only the waiting.
    """
    from raysched.cli.cancel import cancel_run

    code = cancel_run(run, tuple(task_run or ()), force=force, wait=wait, as_json=json)
    raise typer.Exit(code)


@app.command(
    epilog=examples(
        "raysched debug last 'load[17]'",
        "raysched debug 3f9c 'load[17]' --trace",
        "raysched debug 3f9c 'load[17]' --no-debugger",
    )
)
def debug(
    run: RunArgument,
    task_run: Annotated[
        str,
        typer.Argument(
            metavar="TASK_RUN",
            show_default=False,
            help="Its key, such as load[17]; the task's name where it has but one.",
        ),
    ],
    *,
    trace: Annotated[
        bool, typer.Option("--trace", help="Stop where the function begins, too.")
    ] = False,
    debugger: Annotated[
        bool,
        typer.Option("--debugger/--no-debugger", help="Open the debugger where it raises."),
    ] = True,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            show_default=False,
            help="Where the flow is, such as file.py:flow; by default where it was.",
        ),
    ] = None,
) -> None:
    """Run a task run that failed again, alone, in this process, with the arguments that it had.

    Where it raises, Python's debugger opens. Nothing of it is kept.
    The exit code is 0 if it goes well this time.
    """
    from raysched.cli.debug import debug_task_run

    raise typer.Exit(debug_task_run(run, task_run, target, trace=trace, debugger=debugger))
