"""The commands for runs that do not go as they should, with their options and help."""

from typing import Annotated

import typer

from raysched.cli.options import JsonOption, RunArgument, examples

app = typer.Typer()


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
