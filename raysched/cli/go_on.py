"""How a run is resumed, and what a person has to look at before."""

from collections.abc import Sequence

from raysched.cli.output import say
from raysched.client import Run, reader_of
from raysched.model.ids import SHORT_ID, some_of
from raysched.model.states import StateType

MOST_NAMES = 8
"""Task runs that people see at once."""


def may_have_run(run: Run) -> list[tuple[str, StateType]]:
    """Return keys and states of the task runs that a resume repeats only with `--yes`."""
    reader = reader_of(None)
    return reader.may_have_run(reader.find_run(run.id))


def print_go_on(run: Run) -> None:
    """Print which command goes on with a run that has not completed, and what to look at first."""
    begun = [key for key, _ in may_have_run(run)]
    say(("go on ", "dim"), f"raysched resume {run.id[:SHORT_ID]}{' --yes' if begun else ''}")
    if begun:
        say((f"      but first look {whether_done(begun)}", "yellow"))


def print_asking(run: Run) -> None:
    """Print what a resume asks a person's yes for, if there is anything."""
    begun = [key for key, _ in may_have_run(run)]
    if begun:
        say(
            (
                f"{some_of(begun, MOST_NAMES)} may have run already, and must not run twice ",
                "yellow",
            ),
            (
                "(idempotent=False): look, and --yes runs them again if the flow calls them",
                "yellow",
            ),
        )


def whether_done(keys: Sequence[str]) -> str:
    """Return what there is to look at before such task runs run again, behind `look`."""
    had = "has had its effect" if len(keys) == 1 else "have had their effects"
    named = some_of(keys, MOST_NAMES)
    return f"whether {named} (idempotent=False) {had}: with --yes they may run again"
