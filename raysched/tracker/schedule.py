"""Cutting what is ready into units, as many as the slots can take."""

from heapq import heappop, heappush

from raysched.policies.limits import window
from raysched.policies.units import unit_size
from raysched.tracker.messages import AskCapacity, Dispatch, WakeAt
from raysched.tracker.run import Lane, Queued, Run, Turn, Unit

SMOOTHING = 0.2
"""Weight of the newest duration in a moving average."""

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


def learn(run: Run, unit: Unit) -> None:
    """Account for the duration of a unit that has come back."""
    # A clock that was set back is no reason to forget that durations are known.
    duration = max(unit.ended - unit.began, 1)
    lane, pace = run.lane(unit.node), run.pace(unit.node)
    lane.mean_ns = _smoothed(lane.mean_ns, duration)
    pace.mean_ns = _smoothed(pace.mean_ns, duration / unit.count)
    pace.last = unit.count


def _smoothed(mean: float, newest: float) -> float:
    return mean + SMOOTHING * (newest - mean) if mean else float(newest)


def _room(run: Run) -> int:
    return run.max_workers - run.running if run.max_workers else 1 << 30


def _dispatch_one(turn: Turn, lane: Lane) -> None:
    run = turn.run
    size = min(_unit_size(run, lane), _room(run))
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


def _unit_size(run: Run, lane: Lane) -> int:
    first = lane.ready[0]
    return max(1, min(_wanted_size(run, lane, first), len(first.members) - first.taken))


def _wanted_size(run: Run, lane: Lane, first: Queued) -> int:
    planned, slots = first.node.planned, lane.slots or 1
    if planned.overlapping:
        # Everything ready is spread over the slots, so that all of them finish together.
        return min(planned.unit_size, -(-lane.queued // slots))
    pace = run.pace(first.node)
    if run.max_workers or pace.large:
        # Few at once leave nothing to share, and large values are handed on one by one.
        return 1
    if run.unit_size:
        return min(planned.unit_size, run.unit_size)
    payload = planned.group.payloads[first.members[first.taken]]
    return unit_size(
        largest=planned.unit_size,
        queued=lane.queued,
        slots=slots,
        mean_seconds=pace.mean_ns / 1e9,
        last=pace.last,
        payload_bytes=len(payload or b""),
    )
