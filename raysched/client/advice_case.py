"""What advice is about, and what it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from raysched.model.values import FailureClass

Options: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Advice:
    """A policy that would have helped.

    Attributes:
        rule: Name of the rule, for example `transient-error`.
        text: What to do and why, in a sentence or two.
        code: Options of `@task` or the call that do it, or "".
    """

    rule: str
    text: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A failure, as far as advice depends on it.

    Attributes:
        failure_class: Who is to blame.
        kind: `CrashKind` or `TimeoutKind` value, or "".
        type: Class of the exception, as in tracebacks.
        message: Its text.
        signal: Name of the signal that ended the process, or "".
        exited: Whether the process ended itself, with an exit code.
        attempts: Attempts that its task run had.
        count: How many failures there are like it.
        group: Size of the map that it is in, or 0.
        victims: How many task runs of other tasks did not run because of them.
        options: What the task was declared with, as far as it was kept (`GroupRow.options`).
    """

    failure_class: FailureClass
    kind: str = ""
    type: str = ""
    message: str = ""
    signal: str = ""
    exited: bool = False
    attempts: int = 1
    count: int = 1
    group: int = 0
    victims: int = 0
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table.

    Attributes:
        name: Its name.
        when: When it applies, for people.
        applies: Whether it applies.
        text: What to do and why.
        code: Options that do it; those that the task has are left out.
        change: Options that the task has, and that are to be changed.
    """

    name: str
    when: str
    applies: Callable[[Case], bool]
    text: str
    code: tuple[str, ...] = ()
    change: tuple[str, ...] = ()
