"""How many units may be on their way at once."""

WINDOW_SECONDS = 0.4
"""Work a slot that is handed to the backend ahead of time: enough that no worker waits for the
driver, little enough that cancelling is quick and a retry does not queue behind it (seconds)."""

MAX_UNITS = 1000
"""Most dispatched units a class, unless there are more slots: the driver pays 6.4 kB for each."""


def window(slots: int, mean_seconds: float, *, growing: bool = False) -> int:
    """Return how many units of a scheduling class may be dispatched and not ended.

    Args:
        slots: Units that the cluster can run at once.
        mean_seconds: Mean duration of a unit (seconds), 0 while it is not known.
        growing: Whether the next unit is only as small as it is because the last one was: those
            that are cut when this one has come back will carry more.
    """
    if growing or mean_seconds <= 0:
        return 2 * slots
    ahead = slots * WINDOW_SECONDS / mean_seconds
    return max(2 * slots, int(min(slots + ahead, max(MAX_UNITS, 4 * slots))))
