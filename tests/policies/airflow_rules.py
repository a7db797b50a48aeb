"""Airflow's trigger rules as Airflow decides, for comparison.

Read from `_evaluate_direct_relatives` of `airflow/ti_deps/deps/trigger_rule_dep.py` (Airflow 3),
which first looks whether a task instance's end is already certain, and then whether it may run. The
parts about mapped task groups are left out: they say which parents count, not what they decide.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SUCCESS, FAILED, UPSTREAM_FAILED, SKIPPED, OPEN = STATES = (
    *("success", "failed", "upstream failed", "skipped"),
    "open",
)
"""How a parent may have ended; `open` if it has not."""

RUN, WAIT = "run", "wait"
"""What a rule may say beside that the task is skipped or upstream failed."""


@dataclass(frozen=True)
class Upstream:
    """What Airflow counts of the parents of a task instance."""

    success: int
    failed: int
    upstream_failed: int
    skipped: int
    upstream: int
    setup: int
    success_setup: int
    skipped_setup: int

    @property
    def done(self) -> bool:
        """Whether all have ended."""
        ended = self.success + self.failed + self.upstream_failed + self.skipped
        return ended >= self.upstream

    @property
    def failures(self) -> int:
        return self.failed + self.upstream_failed


def counted(states: Sequence[str], setups: Sequence[str] = ()) -> Upstream:
    """Count the states of parents, of which some are setups."""
    all_of_them = Counter([*states, *setups])
    of_setups = Counter(setups)
    return Upstream(
        success=all_of_them[SUCCESS],
        failed=all_of_them[FAILED],
        upstream_failed=all_of_them[UPSTREAM_FAILED],
        skipped=all_of_them[SKIPPED],
        upstream=len(states) + len(setups),
        setup=len(setups),
        success_setup=of_setups[SUCCESS],
        skipped_setup=of_setups[SKIPPED],
    )


def decide(rule: str, up: Upstream) -> str:
    """Return what Airflow decides: `run`, `wait`, `skipped` or `upstream failed`."""
    if rule == "always" or not up.upstream:
        return RUN
    return ENDS[rule](up) or (RUN if MET[rule](up) else WAIT)


def _all_success_ends(up: Upstream) -> str:
    if up.failures:
        return UPSTREAM_FAILED
    return SKIPPED if up.skipped else ""


def _one_success_ends(up: Upstream) -> str:
    if up.done and up.skipped == up.upstream:
        return SKIPPED
    return UPSTREAM_FAILED if up.done and not up.success else ""


def _min_one_success_ends(up: Upstream) -> str:
    if up.skipped:
        return SKIPPED
    return UPSTREAM_FAILED if up.done and not up.success else ""


def _none_failed_min_one_success_ends(up: Upstream) -> str:
    if up.failures:
        return UPSTREAM_FAILED
    return SKIPPED if up.skipped == up.upstream else ""


def _setup_ends(up: Upstream) -> str:
    if not (up.done and up.setup):
        return ""
    if up.skipped_setup >= up.setup:
        return SKIPPED
    return "" if up.success_setup else UPSTREAM_FAILED


ENDS: dict[str, Callable[[Upstream], str]] = {
    "all_success": _all_success_ends,
    "all_failed": lambda up: SKIPPED if up.success or up.skipped else "",
    "all_done": lambda _: "",
    "all_done_min_one_success": _min_one_success_ends,
    "all_done_setup_success": _setup_ends,
    "one_success": _one_success_ends,
    "one_failed": lambda up: SKIPPED if up.done and not up.failures else "",
    "one_done": lambda up: SKIPPED if up.done and not (up.failed or up.success) else "",
    "none_failed": lambda up: UPSTREAM_FAILED if up.failures else "",
    "none_skipped": lambda up: SKIPPED if up.skipped else "",
    "none_failed_min_one_success": _none_failed_min_one_success_ends,
    "all_skipped": lambda up: SKIPPED if up.success or up.failures else "",
}
"""The end of a task instance that a rule is certain of, or ""."""

MET: dict[str, Callable[[Upstream], bool]] = {
    "all_success": lambda up: up.success == up.upstream,
    "all_failed": lambda up: up.failures == up.upstream,
    "all_done": lambda up: up.done,
    "all_done_min_one_success": lambda up: up.done and not up.skipped and up.success > 0,
    "all_done_setup_success": lambda up: up.done and (not up.setup or up.success_setup > 0),
    "one_success": lambda up: up.success > 0,
    "one_failed": lambda up: up.failures > 0,
    "one_done": lambda up: up.success + up.failed > 0,
    "none_failed": lambda up: up.success + up.skipped == up.upstream,
    "none_skipped": lambda up: up.done and not up.skipped,
    "none_failed_min_one_success": lambda up: up.success + up.skipped == up.upstream,
    "all_skipped": lambda up: up.skipped == up.upstream,
}
"""Whether a task instance may run whose end is not certain."""
