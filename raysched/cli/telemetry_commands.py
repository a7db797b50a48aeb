"""The commands `trace` and `jaeger` with their options and help."""

from typing import Annotated, Any

import typer

from raysched.cli.options import JsonOption, examples
from raysched.errors import UsageError

app = typer.Typer()


def _port(help_text: str) -> Any:
    return typer.Option(min=1, max=65535, metavar="PORT", show_default=False, help=help_text)


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
