"""The commands `trace` and `jaeger` with their options and help."""

from pathlib import Path
from typing import Annotated, Any

import typer

from raysched.cli.options import JsonOption, RunArgument, examples
from raysched.errors import UsageError

app = typer.Typer()


def _port(help_text: str) -> Any:
    return typer.Option(min=1, max=65535, metavar="PORT", show_default=False, help=help_text)


@app.command(
    epilog=examples(
        "raysched trace last",
        "raysched trace 3f9c --output trace.json",
        "raysched trace 3f9c --send",
        "raysched trace 3f9c --send --endpoint http://collector:4318",
        "raysched trace --unsent",
    )
)
def trace(
    run: RunArgument = "",
    *,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            show_default=False,
            help="At most so many lines, 0 for all. By default 40.",
        ),
    ] = None,
    execution: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            show_default=False,
            help="Of a run that was resumed, the trace of this execution; by default the last.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            help="Write it as OTLP JSON.",
        ),
    ] = None,
    send: Annotated[
        bool,
        typer.Option(
            "--send",
            help="Send it to the collector of --endpoint, else to the one that runs send to.",
        ),
    ] = False,
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="URL",
            show_default=False,
            help="Where to send it, such as http://host:4318.",
        ),
    ] = "",
    unsent: Annotated[
        bool,
        typer.Option(
            "--unsent", help="Send all that was to be traced, and has not arrived at a collector."
        ),
    ] = False,
    lost: Annotated[bool, typer.Option("--lost", hidden=True)] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            show_default=False,
            help="Print it as OTLP JSON; with --send or --unsent print what was sent.",
        ),
    ] = False,
) -> None:
    """Draw what happened when in a run, and what determined how long it took.

    The spans are made from the database, also long after, and without any collector. Bars are
    attempts, red ones failed; light ones are waiting. A diamond marks the critical path.
    """
    from raysched.cli import trace as command

    if lost:
        from raysched.client.delivery import send_lost

        send_lost()
        raise typer.Exit
    sends = send or unsent
    if unsent == bool(run):
        raise UsageError("give a RUN, such as last, or --unsent; see raysched trace --help")
    if sends and (output or limit is not None or execution is not None):
        raise UsageError("--send and --unsent: leave --output, --limit and --execution out")
    if endpoint and not sends:
        raise UsageError("--endpoint: says where --send sends to; add --send")
    if sends:
        raise typer.Exit(command.send(run, endpoint, as_json=json))
    if json or output:
        command.write(run, output)
    else:
        command.draw(run, execution, limit)


@app.command(
    epilog=examples(
        "raysched jaeger",
        "raysched jaeger --keep",
        "raysched jaeger --stop",
        "raysched jaeger --json | jq -r .otlp_http",
    )
)
def jaeger(
    *,
    stop: Annotated[
        bool, typer.Option("--stop", help="End the one that was started so, and no other.")
    ] = False,
    foreground: Annotated[
        bool,
        typer.Option("--foreground", help="Run it in this terminal, until Ctrl-C ends it."),
    ] = False,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep traces in RAYSCHED_HOME for 30 days, and not only in memory."
        ),
    ] = False,
    ui_port: Annotated[
        int | None, _port("Port of its pages; by default 16686, or a free one where that is taken.")
    ] = None,
    http_port: Annotated[
        int | None, _port("Port of OTLP over HTTP; by default 4318, or a free one.")
    ] = None,
    grpc_port: Annotated[
        int | None, _port("Port of OTLP over gRPC; by default 4317, or a free one.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Keep a Jaeger running on this machine: runs send their traces to it by themselves.

    It is the jaeger on PATH, or of RAYSCHED_JAEGER, else a container of Docker or Podman.
    Only programs on this machine can reach it.
    """
    from raysched.cli import jaeger as command

    if stop:
        if foreground or keep or ui_port or http_port or grpc_port:
            raise UsageError("--stop: ends the one that is there; leave the other options out")
        raise typer.Exit(command.stop(as_json=json))
    code = command.start(
        ui_port, http_port, grpc_port, keep=keep, foreground=foreground, as_json=json
    )
    raise typer.Exit(code)
