"""The commands `up`, `down` and `status` with their options and help."""

from typing import Annotated

import typer

from raysched.cli.options import JsonOption, examples

app = typer.Typer()


@app.command(
    epilog=examples(
        "raysched up",
        "raysched up --num-cpus 4 --object-store-memory 2GiB",
        "raysched up --dashboard",
        "raysched up --json | jq -r .address",
    )
)
def up(
    *,
    num_cpus: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", show_default=False, help="CPUs; by default those of the machine."
        ),
    ] = None,
    num_gpus: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", show_default=False, help="GPUs; by default those of the machine."
        ),
    ] = None,
    object_store_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            show_default=False,
            help="Size of the object store: bytes, or such as 2GiB; by default Ray's choice, about "
            "30 % of the memory.",
        ),
    ] = None,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard", help='Also start Ray\'s dashboard: needs pip install "ray\\[default]".'
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Keep a Ray running on this machine, so that runs need not start one each.

    Runs without an address find it by themselves, those of scripts too.
    Only this user can reach it, and only from this machine.
    """
    from raysched.cli.kept_ray import bring_up

    bring_up(num_cpus, num_gpus, object_store_memory, dashboard=dashboard, as_json=json)


@app.command(epilog=examples("raysched down", "raysched down --force"))
def down(
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also while runs use it: they crash.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """End the Ray of raysched up, and no other."""
    from raysched.cli.kept_ray import take_down

    take_down(force=force, as_json=json)


@app.command(epilog=examples("raysched status", "raysched status --json | jq .resources.CPU"))
def status(*, json: JsonOption = False) -> None:
    """Show the Ray of raysched up: where it is, how much of it is in use, and by whom.

    Where raysched jaeger has started a Jaeger, that is shown, too.
    The exit code is 1 if there is no Ray that runs can use.
    """
    from raysched.cli.kept_ray import tell_status

    raise typer.Exit(tell_status(as_json=json))
