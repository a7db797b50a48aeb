"""When a task run may begin, from how those that it needs ended."""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import TypeAlias


class TriggerRule(StrEnum):
    """Airflow's trigger rules, by Airflow's names; `policies.trigger` says what each means."""

    ALL_SUCCESS = "all_success"
    ALL_FAILED = "all_failed"
    ALL_DONE = "all_done"
    ALL_DONE_MIN_ONE_SUCCESS = "all_done_min_one_success"
    ALL_DONE_SETUP_SUCCESS = "all_done_setup_success"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"
    ONE_DONE = "one_done"
    NONE_FAILED = "none_failed"
    NONE_SKIPPED = "none_skipped"
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    ALL_SKIPPED = "all_skipped"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class MinSuccess:
    """Enough of those that it needs succeeded, once all of them have ended.

    Attributes:
        least: How many (an int), or which share of them (a float over 0, up to 1.0).
    """

    least: int | float

    def needed(self, all_of_them: int) -> int:
        """Return how many have to succeed of so many."""
        return self.least if isinstance(self.least, int) else ceil(self.least * all_of_them)

    def __str__(self) -> str:
        return f"min_success({self.least!r})"


Trigger: TypeAlias = TriggerRule | MinSuccess
