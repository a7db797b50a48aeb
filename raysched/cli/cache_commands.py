"""The commands `cache ls`, `cache show` and `cache clear` with their options and help."""

from typing import Annotated

import typer

from raysched.cli.options import JsonOption, examples

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look at cached results, and clear them.",
)


@app.command("ls", epilog=examples("raysched cache ls", "raysched cache ls --json"))
def list_(*, json: JsonOption = False) -> None:
    """List what is cached, by task: how many results, what they take, how old they are."""
    from raysched.cli.cache import list_tasks

    list_tasks(as_json=json)


@app.command(epilog=examples("raysched cache show parse", "raysched cache show 3f9c01"))
def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TASK|KEY",
            show_default=False,
            help="Name of a task, or the first digits of a key, at least four.",
        ),
    ],
    *,
    limit: Annotated[
        int | None,
        typer.Option(min=0, show_default=False, help="At most so many entries, 0 for all."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show cached results: of which task run they are, and what their keys are made of."""
    from raysched.cli.cache import show_entries

    show_entries(what, limit, as_json=json)


@app.command(
    epilog=examples(
        "raysched cache clear parse",
        "raysched cache clear --older-than 30d --dry-run",
        "raysched cache clear --all --yes",
    )
)
def clear(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[TASK|KEY]",
            show_default=False,
            help="Name of a task, or the first digits of a key, at least four.",
        ),
    ] = "",
    *,
    all_of_them: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            show_default=False,
            help="Only what was claimed so long ago: 12h, 30d, 8w.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be cleared.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Forget cached results, so that they are made again. Runs keep theirs."""
    from raysched.cli.cache import clear_entries

    clear_entries(what, older_than, all_of_them=all_of_them, yes=yes, dry_run=dry_run, as_json=json)
