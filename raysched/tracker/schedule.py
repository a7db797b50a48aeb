"""Cutting what is ready into units, as many as the slots can take."""

from array import array
from collections.abc import Sequence
from heapq import heappop, heappush

from raysched.graph.group import Group
from raysched.policies.limits import window
from raysched.policies.units import GROWTH, chain_length, lease_seconds, unit_size
from raysched.tracker.fusion import MAX_RIDDEN, ride_along, stages
from raysched.tracker.lanes import Lane, Queued
from raysched.tracker.messages import AskCapacity, Dispatch, Rider, WakeAt
from raysched.tracker.run import Node, Part, Run, Turn, Unit

SMOOTHING = 0.2
"""Weight of the newest duration in a moving average."""

UNLIMITED = 1 << 30
"""More task runs than there can be at once."""

CAPACITY_NS = 2_000_000_000
"""How often the backend is asked for the slots of a lane with a queue (ns)."""


def dispatch(turn: Turn) -> None:
    """Dispatch what is ready, lane by lane, up to each window and the limits of the user."""
    run = turn.run
    for lane in run.lanes.values():
        if not lane.queued:
            continue
        if turn.now >= lane.ask_at:
            spec = lane.variant or lane.ready[0].node.group.spec
            lane.ask_at = turn.now + CAPACITY_NS
            turn.commands.append(AskCapacity(lane.scheduling_class, spec))
        while lane.queued and lane.slots and _room(run, lane) > 0:
            size = _unit_size(run, lane)
            if lane.units >= _window(run, lane, size):
                break
            _dispatch_one(turn, lane, size)


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


def hold_places(run: Run, unit: Unit) -> None:
    """Account for how many members of a unit may run at once, now that it has these open ones."""
    places = len(unit.open) if unit.node.planned.overlapping else min(1, len(unit.open))
    limit = unit.lane.limit
    run.running += places - unit.places
    if limit is not None:
        limit.running += places - unit.places
    unit.places = places


def learn(run: Run, unit: Unit) -> None:
    """Account for the duration of a unit that has come back."""
    # A clock that was set back is no reason to forget that durations are known.
    duration = max(unit.ended - unit.began, 1)
    lane, pace = unit.lane, run.pace(unit.node)
    lane.mean_ns = _smoothed(lane.mean_ns, duration)
    # What rides is part of what a member costs.
    own = sum(len(part.indices) for part in unit.parts if part.node is unit.node)
    count = max(1.0, unit.count * own / len(unit.attempts))
    pace.mean_ns = _smoothed(pace.mean_ns, duration / count)
    pace.last = int(count)


def _smoothed(mean: float, newest: float) -> float:
    return mean + SMOOTHING * (newest - mean) if mean else float(newest)


def _room(run: Run, lane: Lane) -> int:
    room = run.max_parallel - run.running if run.max_parallel else UNLIMITED
    return min(room, lane.limit.most - lane.limit.running) if lane.limit else room


def _window(run: Run, lane: Lane, size: int) -> int:
    pace = run.pace(lane.ready[0].node)
    growing = not run.unit_size and size == max(1, GROWTH * pace.last)
    return window(lane.slots or 1, lane.mean_ns / 1e9, growing=growing)


def _dispatch_one(turn: Turn, lane: Lane, size: int) -> None:
    run = turn.run
    node, indices = lane.take(size)
    lease = lease_seconds(lane.slots or 1)
    pace = run.pace(node)
    # Large values are told when their unit ends: what takes long is not to hold them up. And what
    # rides was planned for the resources of the group.
    alone = lane.variant is not None or (pace.large and pace.mean_ns > lease * 1e9)
    riding = () if alone else ride_along(run, node, indices, _most(run, node))
    parts = (Part(node, indices), *riding)
    attempts = [_begin_attempts(part.node.group, part.indices) for part in parts]
    number = run.next_unit
    run.next_unit += 1
    numbers = [each for some in attempts for each in some]
    first = numbers.count(1) == len(numbers)
    unit = run.units[number] = Unit(parts, numbers, set(range(len(numbers))), lane, first)
    hold_places(run, unit)
    lane.units += 1
    node.units += 1
    if not node.group.spec.idempotent:
        # That it may have begun is known before it begins, whatever becomes of this process.
        for index in indices:
            node.group.started[index] = turn.now
        turn.record_all(node.group, indices)
    riders = tuple(
        Rider(part.node.group, part.indices, some, part.parents)
        for part, some in zip(parts[1:], attempts[1:], strict=True)
    )
    turn.commands.append(
        Dispatch(number, node.group, indices, attempts[0], lease, riders, lane.variant)
    )


def _most(run: Run, node: Node) -> int:
    """Return how many members of a chain, each needing the one before, one unit takes."""
    planned, pace = node.planned, run.pace(node)
    if run.unit_size or planned.fixed_size:
        return min(planned.unit_size, run.unit_size or planned.unit_size)
    return chain_length(largest=planned.unit_size, mean_seconds=pace.mean_ns / 1e9, last=pace.last)


def _begin_attempts(group: Group, indices: Sequence[int]) -> Sequence[int]:
    attempts = group.attempts
    if isinstance(indices, range):
        part = slice(indices.start, indices.stop)
        if not any(attempts[part]):
            first = attempts[part] = array("H", (1,)) * len(indices)
            return first
    for index in indices:
        attempts[index] += 1
    return array("H", [attempts[index] for index in indices])


def _unit_size(run: Run, lane: Lane) -> int:
    first = lane.ready[0]
    left = len(first.members) - first.taken
    return max(1, min(_wanted_size(run, lane, first), left, MAX_RIDDEN // stages(first.node)))


def _wanted_size(run: Run, lane: Lane, first: Queued) -> int:
    planned, slots = first.node.planned, lane.slots or 1
    if lane.variant is not None:
        # What has options of its own is tried again, and is not to blame others.
        return 1
    if planned.overlapping:
        # Everything ready is spread over the slots, so that all of them finish together.
        return min(planned.unit_size, -(-lane.queued // slots), _room(run, lane))
    pace = run.pace(first.node)
    if planned.fixed_size:
        return planned.unit_size
    if pace.large:
        # Large values are handed on one by one.
        return 1
    if run.unit_size:
        return min(planned.unit_size, run.unit_size)
    return unit_size(
        largest=planned.unit_size,
        queued=lane.queued,
        slots=min(slots, run.max_parallel or slots, lane.limit.most if lane.limit else slots),
        mean_seconds=pace.mean_ns / 1e9,
        last=pace.last,
        payload_bytes=planned.group.payload_bytes(first.members[first.taken]),
    )
