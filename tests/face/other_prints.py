"""A program whose `print` is replaced between flow runs, as libraries do."""

import builtins
import sys

from raysched import flow, task
from raysched.client import get_runs


@task(log_prints=True)
def chatty(x: int) -> None:
    """Print."""
    print("task", x)  # noqa: T201 - kept as a log record


def body(x: int) -> None:
    """Print, in a task and here."""
    chatty(x)
    print("flow speaks" if x == 2 else "flow", x)  # noqa: T201 - as above, or shown


flow(body, name="first", log_prints=True)(1)
before = builtins.print


def decorated(*values: object) -> None:
    """Print as a library's would."""
    before("library:", *values)


builtins.print = decorated  # type: ignore[assignment]
flow(body, name="second")(2)
flow(body, name="third", log_prints=True)(3)
print("outside")  # noqa: T201 - shown
said = [log.message for run in reversed(get_runs()) for log in run.logs()]
sys.stdout.write(", ".join(said) + "\n")
