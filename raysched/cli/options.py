"""What the options and help texts of all commands share."""

from typing import Annotated, TypeAlias

import typer

JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", show_default=False, help="Print JSON.")
]
RunArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="RUN", show_default=False, help="A run's id, a unique prefix of it, or last."
    ),
]


def examples(*lines: str) -> str:
    """Lay out command lines for the end of a help text."""
    return "\n".join(("Examples:", *(f"  {line}" for line in lines)))
