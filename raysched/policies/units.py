"""How many task runs one unit carries, and how long its worker may keep them."""

TARGET_SECONDS = 0.1
"""Work of a unit that is worth a call of Ray, which costs about 0.8 ms of CPU (seconds)."""

CALL_SECONDS = 0.0004
"""The driver's part of that price (seconds)."""

UNITS_A_SECOND = 1000
"""Most units that a driver issues in a second: with `CALL_SECONDS` each, what is left of its core
is for everything else that it does."""

GROWTH = 4
"""A unit is at most so many times as large as the last one of its task: one that turns out slow
then holds back few others."""

ROUNDS = 4
"""What is queued is cut for so many rounds of all slots, so that they finish together."""

WORTH_SECONDS = 0.004
"""Below this much work (seconds) what a call costs is more than what the others would wait."""

MAX_BYTES = 1024**2
"""Arguments that one unit carries, unless a single task run has more (bytes)."""


def target_seconds(slots: int) -> float:
    """Return how much work a unit should carry (seconds).

    `TARGET_SECONDS`, and where that many slots would empty more than `UNITS_A_SECOND` units of that
    size in a second, so much that they do not.

    Args:
        slots: Units that can run at once.
    """
    return max(TARGET_SECONDS, slots / UNITS_A_SECOND)


def lease_seconds(slots: int) -> float:
    """Return when a unit's worker hands back what it has not begun, for others (seconds).

    Twice the target: a unit that was cut by a mean that is right is never handed back.

    Args:
        slots: Units that can run at once.
    """
    return 2 * target_seconds(slots)


def chain_length(*, largest: int, mean_seconds: float, last: int) -> int:
    """Return how many task runs, each needing the one before, the next unit carries, at least 1.

    As `unit_size`, but nothing of a chain can run elsewhere at the same time.

    Args:
        largest: Most that the plan allows.
        mean_seconds: Mean time that one of them takes a worker (seconds), 0 while not known.
        last: Size of the last unit of this task that came back, 0 before the first.
    """
    if mean_seconds <= 0:
        return 1
    return max(1, int(min(largest, TARGET_SECONDS / mean_seconds, GROWTH * last)))


def unit_size(  # noqa: PLR0913 - all that the rule rests on
    *, largest: int, queued: int, slots: int, mean_seconds: float, last: int, payload_bytes: int
) -> int:
    """Return how many task runs the next unit of a task carries, at least 1.

    The rule of joblib's automatic batching, with smaller units toward the end (guided
    self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987):
    min(target / mean, queued / (rounds * slots), growth * last, largest).

    Units get smaller toward the end only as far as that pays: not below the work that a slot does
    while the driver issues one unit to each of the others, nor below `WORTH_SECONDS` where an even
    share is more.

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
        target_seconds(slots) / mean_seconds,
        max(
            -(-queued // (ROUNDS * slots)),
            slots * CALL_SECONDS / mean_seconds,
            min(WORTH_SECONDS / mean_seconds, -(-queued // slots)),
        ),
        GROWTH * last,
        MAX_BYTES // max(1, payload_bytes),
    )
    return max(1, int(size))
