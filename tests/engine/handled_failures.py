"""The table of docs/failures.md: which failures count as handled. Run as a script, it writes it.

Each cell is the end of a flow that really runs. A row is what the flow does with a task run that
did not succeed; the columns are one that failed itself, in each of the ways in which it can, and
one that only followed.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from raysched import (
    Cancelled,
    Crashed,
    StateType,
    allow_failure,
    as_completed,
    flow,
    task,
    wait,
)
from raysched.model.states import ROOT_FAILURES
from raysched.testing import inline

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"
BEGIN, END = "<!-- begin: tests/engine/handled_failures.py -->\n", "<!-- end -->\n"


@task
def fail() -> None:
    raise ValueError


@task(timeout_seconds=0.05)
def time_out() -> None:
    time.sleep(60)


@task
def crash() -> Any:
    return Crashed(message="the machine is gone")


@task
def cancel() -> Any:
    return Cancelled()


@task
def follow(value: object = None) -> None:
    """Take a value, and say nothing."""


BROKEN: Mapping[StateType, Any] = {
    StateType.FAILED: fail,
    StateType.TIMED_OUT: time_out,
    StateType.CRASHED: crash,
    StateType.CANCELLED: cancel,
}


@dataclass(frozen=True)
class Subject:
    """A task run that does not succeed.

    Attributes:
        call: Calls the task.
        submit: Submits it.
    """

    call: Callable[..., Any]
    submit: Callable[[], Any]


def own(state: StateType) -> Subject:
    """A task run that ends in a state by itself."""
    broken = BROKEN[state]
    return Subject(broken, broken.submit)


def follower() -> Subject:
    """A task run that only follows from one that failed."""
    return Subject(
        lambda **options: follow(fail.submit(), **options), lambda: follow.submit(fail.submit())
    )


def ended(subject: Subject) -> Any:
    """Submit, and return the future once it is done."""
    future = subject.submit()
    future.wait()
    return future


def caught(call: Callable[[], object]) -> None:
    """Catch what a call raises."""
    with suppress(Exception):
        call()


ACTIONS: Mapping[str, Callable[[Subject], object]] = {
    "submits the task and never looks": lambda it: it.submit(),
    "waits: `future.wait()`, `wait`, `as_completed`": lambda it: (
        it.submit().wait(),
        wait([it.submit()]),
        list(as_completed([it.submit()])),
    ),
    "calls the task, catches the exception and goes on": lambda it: caught(it.call),
    "calls the task and lets the exception through": lambda it: it.call(),
    "catches what `future.result()` raises and goes on": lambda it: caught(it.submit().result),
    "lets what `future.result()` raises through": lambda it: it.submit().result(),
    "asks `future.result(raise_on_failure=False)`": lambda it: it.submit().result(
        raise_on_failure=False
    ),
    "calls with `return_state=True`": lambda it: it.call(return_state=True),
    "reads `future.state` when it has ended": lambda it: ended(it).state,
    "reads `future.state` before that": lambda it: it.submit().state,
    "reads `future.state` and raises its exception": lambda it: ended(it).state.result(),
    "catches what `future.state.result()` raises and goes on": lambda it: caught(
        ended(it).state.result
    ),
    "passes `allow_failure(future)` to a task": lambda it: follow.submit(
        allow_failure(it.submit())
    ).result(),
    "passes the future to a task and never looks": lambda it: follow.submit(it.submit()),
    "passes it in `wait_for` and never looks": lambda it: follow.submit(wait_for=[it.submit()]),
}
"""What a flow does, as the page says it."""


def outcome(action: Callable[[Subject], object], subject: Subject) -> StateType:
    """Return how a flow ends that does so."""

    def body() -> None:
        action(subject)

    around: Any = flow(body, name="around", validate_parameters=False)
    state: StateType = around(return_state=True).type
    return state


@cache
def rows() -> dict[str, tuple[set[StateType], StateType]]:
    """Return for each action the ends of the flow: for all own failures, and for a follower."""
    with inline():
        return {
            text: (
                {outcome(action, own(state)) for state in BROKEN},
                outcome(action, follower()),
            )
            for text, action in ACTIONS.items()
        }


def table() -> str:
    """Return the table as Markdown."""
    states = ", ".join(f"`{state.name}`" for state in sorted(ROOT_FAILURES))
    lines = [
        f"| The flow | one that failed itself ({states}) | one that only followed |",
        "| --- | --- | --- |",
    ]
    for text, (own_ends, follower_end) in rows().items():
        (own_end,) = own_ends
        lines.append(f"| {text} | {_cell(own_end)} | {_cell(follower_end)} |")
    return "\n".join(lines) + "\n"


def written() -> str:
    """Return the page with the table as it is now."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + table() + "\n" + END + after


def _cell(state: StateType) -> str:
    return "handled" if state is StateType.COMPLETED else f"the flow is `{state.name}`"


if __name__ == "__main__":
    PAGE.write_text(written(), "utf-8")
