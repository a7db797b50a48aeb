"""The commands `db upgrade`, `db stats` and `db prune` with their options and help."""

from typing import Annotated

import typer

from raysched.cli.options import JsonOption, examples

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look after the database: its schema, its size, and how long runs are kept.",
)


@app.command()
def upgrade(*, json: JsonOption = False) -> None:
    """Bring the database's schema up to date, or make it where there is none yet.

    The first raysched run does that, too. Runs of an older raysched have to end before.
    """
    from raysched.cli.db import upgrade_database

    upgrade_database(as_json=json)


@app.command()
def stats(*, json: JsonOption = False) -> None:
    """Show what is kept, and what it takes: runs, task runs, tables, results."""
    from raysched.cli.db import show_stats

    show_stats(as_json=json)


@app.command(
    epilog=examples(
        "raysched db prune --older-than 30d --dry-run",
        "raysched db prune --older-than 8w",
        "RAYSCHED_RETENTION_DAYS=30 raysched db prune",
    )
)
def prune(
    *,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            show_default=False,
            help="How long ago they ended: 12h, 30d, 8w. By default RAYSCHED_RETENTION_DAYS.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Remove runs that ended long ago, with their task runs, logs and results.

    Open runs stay, also those that were lost with their driver, and results that other runs use.
    Others may work with the database meanwhile.
    The exit code is 1 if something could not be removed.
    """
    from raysched.cli.db import prune_runs

    raise typer.Exit(prune_runs(older_than, dry_run=dry_run, as_json=json))
