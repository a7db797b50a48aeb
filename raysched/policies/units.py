"""How many task runs one unit carries."""

TARGET_SECONDS = 0.1
"""Work of a unit that is worth a call of Ray, which costs about 0.8 ms of CPU (seconds)."""

LEASE_SECONDS = 0.2
"""When a unit's worker hands back what it has not begun, so that others run it (seconds)."""

GROWTH = 4
"""A unit is at most so many times as large as the last one of its task: one that turns out slow
then holds back few others."""

ROUNDS = 4
"""What is queued is cut for so many rounds of all slots, so that they finish together."""

MAX_BYTES = 1024**2
"""Arguments that one unit carries, unless a single task run has more (bytes)."""


def unit_size(  # noqa: PLR0913 - all that the rule rests on
    *, largest: int, queued: int, slots: int, mean_seconds: float, last: int, payload_bytes: int
) -> int:
    """Return how many task runs the next unit of a task carries, at least 1.

    The rule of joblib's automatic batching, with smaller units toward the end:
    min(target / mean, queued / (rounds * slots), growth * last, largest).

    Args:
        largest: Most that the plan allows.
        queued: Task runs that can run now.
        slots: Units that can run at once.
        mean_seconds: Mean time that one of them takes a worker (seconds), 0 while not known.
        last: Size of the last unit of this task that came back, 0 before the first.
        payload_bytes: Size of the arguments of one of them (bytes).
    """
    if mean_seconds <= 0 or largest == 1:
        return 1
    size = min(
        largest,
        TARGET_SECONDS / mean_seconds,
        -(-queued // (ROUNDS * slots)),
        GROWTH * last,
        MAX_BYTES // max(1, payload_bytes),
    )
    return max(1, int(size))
