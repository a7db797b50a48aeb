"""Cutting what is ready into units, as many as the slots can take."""

from collections.abc import Sequence

from raysched.policies.limits import window
from raysched.tracker.messages import AskCapacity, Dispatch, WakeAt
from raysched.tracker.run import Lane, Node, Run, Turn, Unit

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
            node = lane.ready[0][0]
            lane.ask_at = turn.now + CAPACITY_NS
            turn.commands.append(AskCapacity(node.planned.scheduling_class, node.group))
        if not lane.slots:
            turn.commands.append(WakeAt(lane.ask_at))
            continue
        limit = window(lane.slots, lane.mean_ns / 1e9)
        while lane.queued and lane.units < limit and _room(run) > 0:
            _dispatch_one(turn, lane)


def learn(lane: Lane, duration: int) -> None:
    """Account for the duration of one unit (ns) in the moving average of its lane."""
    if lane.mean_ns:
        lane.mean_ns += SMOOTHING * (duration - lane.mean_ns)
    else:
        lane.mean_ns = float(max(duration, 1))


def _room(run: Run) -> int:
    return run.max_workers - run.running if run.max_workers else 1 << 30


def _dispatch_one(turn: Turn, lane: Lane) -> None:
    run = turn.run
    node, members = lane.ready.popleft()
    size = min(_unit_size(lane, node, members), _room(run))
    indices, rest = members[:size], members[size:]
    if rest:
        lane.ready.appendleft((node, rest))
    lane.queued -= len(indices)
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


def _unit_size(lane: Lane, node: Node, members: Sequence[int]) -> int:
    largest = node.planned.unit_size
    if largest == 1 or members[0] in node.alone:
        return 1
    # Everything ready is spread over the slots, so that all of them finish together.
    size = max(1, min(largest, -(-lane.queued // (lane.slots or 1)), len(members)))
    if node.alone:
        size = next((n for n in range(1, size) if members[n] in node.alone), size)
    return size
