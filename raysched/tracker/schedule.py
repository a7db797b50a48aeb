"""Cutting what is ready into units, as many as the slots can take."""

from heapq import heappop, heappush

from raysched.policies.limits import window
from raysched.tracker.messages import AskCapacity, Dispatch, WakeAt
from raysched.tracker.run import Lane, Queued, Run, Turn, Unit

SMOOTHING = 0.2
"""Weight of the newest duration in a lane's moving average."""

CAPACITY_NS = 2_000_000_000
"""How often the backend is asked for the slots of a lane with a queue (ns)."""


def dispatch(turn: Turn) -> None:
    """Dispatch what is ready, lane by lane, up to each window and the run's own limit."""
    run = turn.run
    for lane in run.lanes.values():
        if not lane.queued:
            continue
        if turn.now >= lane.ask_at:
            node = lane.ready[0].node
            lane.ask_at = turn.now + CAPACITY_NS
            turn.commands.append(AskCapacity(node.planned.scheduling_class, node.group))
        if not lane.slots:
            continue
        limit = window(lane.slots, lane.mean_ns / 1e9)
        while lane.queued and lane.units < limit and _room(run) > 0:
            _dispatch_one(turn, lane)


def ask_to_be_woken(turn: Turn) -> None:
    """Ask for the next time at which something is due, unless an earlier one was asked for.

    Never twice for one time: each wake-up would ask for the next one again, and their number
    would grow without end.
    """
    run = turn.run
    times = [lane.ask_at for lane in run.lanes.values() if lane.queued]
    if run.timers:
        times.append(run.timers[0][0])
    if times and (not run.wakes or min(times) < run.wakes[0]):
        heappush(run.wakes, min(times))
        turn.commands.append(WakeAt(min(times)))


def woken(run: Run, at: int) -> None:
    """Account for a time (ns) that has come."""
    while run.wakes and run.wakes[0] <= at:
        heappop(run.wakes)


def learn(lane: Lane, duration: int) -> None:
    """Account for the duration of one unit (ns) in the moving average of its lane."""
    # A clock that was set back is no reason to forget that durations are known.
    duration = max(duration, 1)
    if lane.mean_ns:
        lane.mean_ns += SMOOTHING * (duration - lane.mean_ns)
    else:
        lane.mean_ns = float(duration)


def _room(run: Run) -> int:
    return run.max_workers - run.running if run.max_workers else 1 << 30


def _dispatch_one(turn: Turn, lane: Lane) -> None:
    run = turn.run
    size = min(_unit_size(lane, lane.ready[0]), _room(run))
    node, indices = lane.take(size)
    group = node.group
    attempts = group.attempts
    for index in indices:
        attempts[index] += 1
    numbers = [attempts[index] for index in indices]
    number = run.next_unit
    run.next_unit += 1
    run.units[number] = Unit(node, indices, numbers, set(range(len(indices))))
    run.running += len(indices)
    lane.units += 1
    turn.commands.append(Dispatch(number, group, indices, numbers))


def _unit_size(lane: Lane, first: Queued) -> int:
    largest = first.node.planned.unit_size
    if largest == 1:
        return 1
    # Everything ready is spread over the slots, so that all of them finish together.
    even = -(-lane.queued // (lane.slots or 1))
    return max(1, min(largest, even, len(first.members) - first.taken))
