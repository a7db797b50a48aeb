"""Whether a task run may begin, from how those that it needs ended."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from raysched.model.triggers import MinSuccess, Trigger, TriggerRule


@dataclass(frozen=True, slots=True)
class Parents:
    """How the task runs ended that one needs: how many of each kind.

    Attributes:
        succeeded: COMPLETED or CACHED.
        failed: Failed by themselves: FAILED, TIMED_OUT, CRASHED or CANCELLED.
        upstream_failed: UPSTREAM_FAILED.
        skipped: SKIPPED.
        open: Not ended.
        setups: How many of all of them are setups.
        setups_succeeded: How many of those succeeded.
    """

    succeeded: int = 0
    failed: int = 0
    upstream_failed: int = 0
    skipped: int = 0
    open: int = 0
    setups: int = 0
    setups_succeeded: int = 0

    def __add__(self, other: "Parents") -> "Parents":
        return Parents(
            self.succeeded + other.succeeded,
            self.failed + other.failed,
            self.upstream_failed + other.upstream_failed,
            self.skipped + other.skipped,
            self.open + other.open,
            self.setups + other.setups,
            self.setups_succeeded + other.setups_succeeded,
        )

    @property
    def all(self) -> int:
        """How many there are."""
        return self.ended + self.open

    @property
    def ended(self) -> int:
        """How many have ended."""
        return self.succeeded + self.failures + self.skipped

    @property
    def failures(self) -> int:
        """How many failed, by themselves or because of others."""
        return self.failed + self.upstream_failed


class Decision(Enum):
    """What becomes of a task run."""

    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"
    UPSTREAM_FAILED = "upstream failed"


EAGER = frozenset(
    {TriggerRule.ONE_SUCCESS, TriggerRule.ONE_FAILED, TriggerRule.ONE_DONE, TriggerRule.ALWAYS}
)
"""Rules that may be met while some of those that are needed have not ended."""


def decide(rule: Trigger, parents: Parents) -> Decision:
    """Decide what becomes of a task run.

    The rules and their names are Airflow's, and so is what meets them. What becomes of a task run
    whose rule cannot be met is not: it is UPSTREAM_FAILED wherever something before it failed, and
    only otherwise skipped, since a skip would hide that failure. It is decided when the last of its
    parents has ended, so that the roots of the failure are complete.

    Args:
        rule: The rule.
        parents: How those that it needs have ended so far.
    """
    if not parents.all or rule is TriggerRule.ALWAYS:
        return Decision.RUN
    if (not parents.open or rule in EAGER) and _is_met(rule, parents):
        return Decision.RUN
    if parents.open:
        return Decision.WAIT
    return Decision.UPSTREAM_FAILED if parents.failures else Decision.SKIP


def _is_met(rule: Trigger, parents: Parents) -> bool:
    if isinstance(rule, MinSuccess):
        return parents.succeeded >= rule.needed(parents.all)
    return _MET[rule](parents)


_MET: dict[TriggerRule, Callable[[Parents], bool]] = {
    TriggerRule.ALL_SUCCESS: lambda p: p.succeeded == p.all,
    TriggerRule.ALL_FAILED: lambda p: p.failures == p.all,
    TriggerRule.ALL_DONE: lambda _: True,
    TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: lambda p: p.succeeded > 0,
    TriggerRule.ALL_DONE_SETUP_SUCCESS: lambda p: not p.setups or p.setups_succeeded > 0,
    TriggerRule.ONE_SUCCESS: lambda p: p.succeeded > 0,
    TriggerRule.ONE_FAILED: lambda p: p.failures > 0,
    # What never ran is not done.
    TriggerRule.ONE_DONE: lambda p: p.succeeded + p.failed > 0,
    TriggerRule.NONE_FAILED: lambda p: not p.failures,
    TriggerRule.NONE_SKIPPED: lambda p: not p.skipped,
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: lambda p: not p.failures and p.succeeded > 0,
    TriggerRule.ALL_SKIPPED: lambda p: p.skipped == p.all,
    TriggerRule.ALWAYS: lambda _: True,
}
"""What meets each rule, of the parents that have ended."""
