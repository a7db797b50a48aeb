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

TargetArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        show_default=False,
        help="file.py, file.py:flow or package.module:flow.",
    ),
]
ParamOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=VALUE",
        show_default=False,
        help="A parameter of the flow, as JSON or as text. May be given several times.",
    ),
]
ParamsJsonOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT|@FILE",
        show_default=False,
        help="All parameters as one JSON object, from a file with @file, from standard input "
        "with @-. --param goes over it.",
    ),
]


def examples(*lines: str) -> str:
    """Lay out command lines for the end of a help text."""
    return "\n".join(("Examples:", *(f"  {line}" for line in lines)))
