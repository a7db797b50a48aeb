"""Which task runs wait for which, and what becomes of them when those end."""

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.states import FAILURES, FIRST_TERMINAL, SUCCESSES, StateType
from raysched.model.values import ErrorInfo, FailureClass
from raysched.tracker.attempts import cancel_waiting
from raysched.tracker.gates import Gate
from raysched.tracker.run import Node, Roots, Run, Turn
from raysched.tracker.transitions import move, move_all

if TYPE_CHECKING:
    from raysched.graph.builder import Member


def join(turn: Turn, nodes: Sequence[Node]) -> None:
    """Connect new nodes with their parents; members that wait for nothing become ready.

    All are connected before anything begins: groups may need members of each other in turns.
    """
    run = turn.run
    for node in nodes:
        size = node.group.size
        node.waiting = array("I", bytes(4 * size))
        node.open = size
        run.open += size
    for node in nodes:
        _let_ride(run, node)
        for edge in node.group.edges:
            _connect(run, node, edge, range(node.group.size))
        for index, edges in node.group.member_edges.items():
            for edge in edges:
                _connect(run, node, edge, (index,))
    for node, ready in [(node, _waiting_for_nothing(node)) for node in nodes]:
        doomed = _begin(turn, node, ready)
        if doomed:
            settle(turn, node, doomed)


def _let_ride(run: Run, node: Node) -> None:
    """Note whose units the members of a node may ride in, where the plan fuses them."""
    behind = node.planned.fuse_behind
    if behind is None:
        return
    for edge in node.group.edges_of(node.group.size - 1):
        if edge.parent is behind:
            # Of a member that needs one other: as many places before it, whatever its own place.
            shift = 0 if edge.kind is EdgeKind.ONE_TO_ONE else node.group.size - 1
            run.nodes[behind.id].follower = node, edge.index - shift
            return


def settle(turn: Turn, node: Node, indices: Sequence[int]) -> None:
    """Account for members that have become terminal, and for all that follows from it."""
    queue: list[tuple[Node, Sequence[int]]] = [(node, indices)]
    while queue:
        parent, ended = queue.pop()
        _close(turn, parent, ended)
        for child, met in _met_by(parent, ended).items():
            doomed = _begin(turn, child, met)
            if doomed:
                queue.append((child, doomed))


def _waiting_for_nothing(node: Node) -> Sequence[int]:
    group = node.group
    if not group.edges and not group.member_edges:
        return range(group.size)
    return [index for index, unmet in enumerate(node.waiting) if not unmet]


def _connect(run: Run, node: Node, edge: Edge, members: Sequence[int]) -> None:
    parent = run.nodes[edge.parent.id]
    if not parent.open:
        return
    if edge.kind is EdgeKind.ONE_TO_ONE:
        parent.aligned.append((node, edge.index))
        states = parent.group.states
        if isinstance(members, range) and parent.open == parent.group.size:
            _raise(node, members)
            return
        for index in members:
            if states[index + edge.index] < FIRST_TERMINAL:
                node.waiting[index] += 1
        return
    gate = parent.gates.find(edge.index, edge.stop)
    if gate is None:
        states = parent.group.states[edge.index : edge.stop]
        remaining = sum(state < FIRST_TERMINAL for state in states)
        if not remaining:
            return
        gate = Gate(edge.index, edge.stop, remaining)
        parent.gates.add(gate)
    gate.add(node, members)
    _raise(node, members)


def _raise(node: Node, members: Sequence[int]) -> None:
    """Put one edge more on these members."""
    waiting = node.waiting
    if isinstance(members, range) and not any(waiting):
        waiting[members.start : members.stop] = array("I", (1,)) * len(members)
        return
    for index in members:
        waiting[index] += 1


def _met_by(parent: Node, ended: Sequence[int]) -> dict[Node, Sequence[int]]:
    """Return by node the members that wait for nothing more, now that these have ended."""
    met: dict[Node, Sequence[int]] = {}
    for child, offset in parent.aligned:
        _add(met, child, _lower(child, _shifted(ended, offset, child.group.size)))
    if parent.gates:
        for gate in parent.gates.opened(ended):
            for child, members in gate.waiting.items():
                _add(met, child, _lower(child, members))
    return met


def _add(met: dict[Node, Sequence[int]], child: Node, members: Sequence[int]) -> None:
    there = met.get(child)
    met[child] = [*there, *members] if there else members


def _shifted(ended: Sequence[int], offset: int, size: int) -> Sequence[int]:
    """Return the aligned members of a child of this size."""
    if isinstance(ended, range):
        return range(max(0, ended.start - offset), max(0, min(size, ended.stop - offset)))
    return [i - offset for i in ended if 0 <= i - offset < size]


def _lower(node: Node, members: Sequence[int]) -> Sequence[int]:
    """Take one edge off these members; return those that wait for nothing more."""
    waiting = node.waiting
    if isinstance(members, range):
        part = slice(members.start, members.stop)
        if waiting[part].count(1) == len(members):
            waiting[part] = array("I", bytes(4 * len(members)))
            return members
    met: list[int] = []
    for index in members:
        waiting[index] -= 1
        if not waiting[index]:
            met.append(index)
    return met


def _begin(turn: Turn, node: Node, members: Sequence[int]) -> list[int]:
    """Make members ready whose parents have all ended; return those that can never run.

    The roots of a failure are complete only when all parents have ended, and what a flow handles
    is decided by roots: so a member is doomed when its last parent ended, not its first.
    """
    run, group = turn.run, node.group
    doomed: list[int] = []
    ready: list[int] | Sequence[int] = members
    if _may_fail(run, group):
        ready = []
        for index in members:
            if group.states[index] >= FIRST_TERMINAL:
                continue
            if _can_run(turn, node, index):
                ready.append(index)
            else:
                doomed.append(index)
                if index in node.riding:
                    node.riding.discard(index)
                    group.attempts[index] -= 1
    elif node.failures or run.cancelled_by:
        # What was cancelled while it waited has ended before its parents.
        ready = [i for i in members if group.states[i] < FIRST_TERMINAL]
    move_all(group, ready, StateType.PENDING)
    if node.riding:
        # These are on their way already, and so is whatever ended their unit.
        if run.aborted:
            move_all(group, [i for i in ready if i in node.riding], StateType.CANCELLING)
        ready = [index for index in ready if index not in node.riding]
    if ready:
        run.lane(node).add(node, ready)
    return doomed


def _may_fail(run: Run, group: Group) -> bool:
    if any(run.nodes[edge.parent.id].failures for edge in group.edges):
        return True
    # Edges of members may lead anywhere: looking at each costs as much as deciding.
    return bool(group.member_edges)


def _can_run(turn: Turn, node: Node, index: int) -> bool:
    run, group = turn.run, node.group
    roots: tuple[Member, ...] = ()
    consumed: list[Member] = []
    skipped = ""
    for edge in group.edges_of(index):
        if not run.nodes[edge.parent.id].failures:
            continue
        found, skip = _roots_of(run, edge, index)
        if edge.allow_failure:
            consumed.extend(found)
        else:
            # Mostly there is one edge with failures: then all its members share its tuple.
            roots = tuple(dict.fromkeys(roots + found)) if roots and found else roots or found
            skipped = skipped or skip
    if (roots or skipped) and run.cancelled_by and index in node.riding:
        # Had it not been on its way, it would have been cancelled with all that waited.
        cancel_waiting(turn, node, index)
        return False
    if roots:
        group.roots[index] = roots
        group.errors[index] = _upstream_error(group, index)
        move(group, index, StateType.UPSTREAM_FAILED)
        return False
    if skipped:
        group.errors[index] = ErrorInfo("", skipped, failure_class=FailureClass.UPSTREAM)
        move(group, index, StateType.SKIPPED)
        return False
    for parent, member in consumed:
        if member not in parent.handled:
            parent.handled.add(member)
            turn.record(parent, member)
    return True


def _roots_of(run: Run, edge: Edge, index: int) -> Roots:
    parent = edge.parent
    if edge.kind is EdgeKind.ONE_TO_ONE:
        return _roots_at(parent, index + edge.index)
    if edge.stop - edge.index == 1:
        return _roots_at(parent, edge.index)
    if edge not in run.roots_of_edges:
        roots: dict[Member, None] = {}
        skipped = ""
        for member in range(edge.index, edge.stop):
            found, skip = _roots_at(parent, member)
            roots.update(dict.fromkeys(found))
            skipped = skipped or skip
        run.roots_of_edges[edge] = tuple(roots), skipped
    return run.roots_of_edges[edge]


def _roots_at(parent: Group, index: int) -> Roots:
    state = StateType(parent.states[index])
    if state is StateType.UPSTREAM_FAILED:
        return parent.roots[index], ""
    if state in FAILURES:
        return ((parent, index),), ""
    return (), "" if state in SUCCESSES else f"{parent.key(index)} was skipped"


def _upstream_error(group: Group, index: int) -> ErrorInfo:
    roots = group.roots[index]
    root, member = roots[0]
    cause = root.errors.get(member)
    more = f" and {len(roots) - 1} more" if len(roots) > 1 else ""
    what = f" ({cause.type.rpartition('.')[2]}: {cause.message})" if cause else ""
    message = f"{group.key(index)} did not run, because {root.key(member)}{more} failed{what}"
    return ErrorInfo("raysched.errors.UpstreamFailed", message, failure_class=FailureClass.UPSTREAM)


def _close(turn: Turn, node: Node, ended: Sequence[int]) -> None:
    run, group = turn.run, node.group
    group.release(ended)
    node.failures += _failures_among(group, ended)
    node.open -= len(ended)
    run.open -= len(ended)
    if not node.open:
        group.shared, group.columns = b"", ()
    turn.record_all(group, ended)


def _failures_among(group: Group, ended: Sequence[int]) -> int:
    if isinstance(ended, range):
        codes = group.states[ended.start : ended.stop]
        return len(codes) - sum(codes.count(state) for state in SUCCESSES)
    return sum(group.states[index] not in SUCCESSES for index in ended)
