"""Which task runs wait for which, and what becomes of them when those end."""

from array import array
from collections.abc import Sequence

from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.states import FAILURES, FIRST_TERMINAL, SUCCESSES
from raysched.policies.trigger import EAGER
from raysched.tracker.gates import Gate
from raysched.tracker.run import Node, Run, Turn
from raysched.tracker.triggering import begin, begin_early, spans


def join(turn: Turn, nodes: Sequence[Node]) -> None:
    """Connect new nodes with their parents; members that wait for nothing become ready.

    All are connected before anything begins: groups may need members of each other in turns.
    """
    run = turn.run
    for node in nodes:
        size = node.group.size
        node.waiting = array("I", bytes(4 * size))
        node.open = size - node.group.answered.count(1)
        node.held = not node.open and node.group.min_success is not None
        run.open += node.open
    for node in nodes:
        _let_ride(run, node)
        for edge in node.group.edges:
            _connect(run, node, edge, range(node.group.size))
        for index, edges in node.group.member_edges.items():
            for edge in edges:
                _connect(run, node, edge, (index,))
    for node, ready in [(node, _waiting_for_nothing(node)) for node in nodes]:
        doomed = begin(turn, node, ready)
        if doomed:
            settle(turn, node, doomed)
        if node.group.spec.trigger_rule in EAGER:
            begin_early(turn, node, range(node.group.size))


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
            doomed = begin(turn, child, met)
            if doomed:
                queue.append((child, doomed))
        for child, edge, members in parent.eager:
            begin_early(turn, child, _touched(child, edge, members, ended))


def _waiting_for_nothing(node: Node) -> Sequence[int]:
    group = node.group
    if any(group.answered):
        waiting = node.waiting
        return [i for i, answered in enumerate(group.answered) if not (answered or waiting[i])]
    if not group.edges and not group.member_edges:
        return range(group.size)
    return [index for index, unmet in enumerate(node.waiting) if not unmet]


def _touched(node: Node, edge: Edge, members: Sequence[int], ended: Sequence[int]) -> Sequence[int]:
    """Return the members that an edge connects with one of these members of its parent."""
    if edge.kind is EdgeKind.ONE_TO_ONE:
        return _shifted(ended, edge.index, node.group.size)
    return members if any(edge.index <= index < edge.stop for index in ended) else ()


def _connect(run: Run, node: Node, edge: Edge, members: Sequence[int]) -> None:
    parent = run.nodes[edge.parent.id]
    if not parent.open:
        return
    if node.group.spec.trigger_rule in EAGER:
        parent.eager.append((node, edge, members))
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
    start, stop = edge.index, edge.stop
    if parent.group.min_success is not None and spans(edge):
        # Whether a part of it may be used is known when all of it has ended.
        start, stop = 0, parent.group.size
    gate = parent.gates.find(start, stop)
    if gate is None:
        remaining = sum(state < FIRST_TERMINAL for state in parent.group.states[start:stop])
        if not remaining:
            return
        gate = Gate(start, stop, remaining)
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


def _close(turn: Turn, node: Node, ended: Sequence[int]) -> None:
    run, group = turn.run, node.group
    group.release(ended)
    node.failures += _failures_among(group, ended)
    node.open -= len(ended)
    run.open -= len(ended)
    turn.record_all(group, ended)
    for kept in (node.stopping, node.last_failures):
        if kept:
            for index in ended:
                kept.pop(index, None)
    if not node.open:
        if not (turn.run.pace(node).large or group.recorded or group.spec.cache):
            group.shared, group.columns = b"", ()
        if group.min_success is not None:
            _look_whether_it_held(turn, node, group.min_success)


def _look_whether_it_held(turn: Turn, node: Node, needed: int) -> None:
    """Handle the failures of a group of which enough members have succeeded."""
    group = node.group
    node.held = sum(map(group.states.count, SUCCESSES)) >= needed
    if not node.held:
        return
    for index, state in enumerate(group.states):
        if state in FAILURES:
            for root, member in ((group, index), *group.roots.get(index, ())):
                if member not in root.handled:
                    root.handled.add(member)
                    turn.record(root, member)


def _failures_among(group: Group, ended: Sequence[int]) -> int:
    if isinstance(ended, range):
        codes = group.states[ended.start : ended.stop]
        return len(codes) - sum(codes.count(state) for state in SUCCESSES)
    return sum(group.states[index] not in SUCCESSES for index in ended)
