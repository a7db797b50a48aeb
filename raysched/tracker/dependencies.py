"""Which task runs wait for which, and what becomes of them when those end."""

from array import array
from collections.abc import Iterable, Sequence

from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.states import FAILURES, FIRST_TERMINAL, SUCCESSES, StateType
from raysched.model.values import ErrorInfo, FailureClass
from raysched.tracker.run import Gate, Node, Roots, Run, Turn
from raysched.tracker.transitions import move


def join(turn: Turn, node: Node) -> list[int]:
    """Connect a new node with its parents; return the members that can never run.

    Those that wait for nothing become ready.
    """
    run, group = turn.run, node.group
    everyone = range(group.size)
    node.waiting = array("I", bytes(4 * group.size))
    node.open = group.size
    run.open += group.size
    for edge in group.edges:
        _connect(run, node, edge, everyone)
    for index, edges in group.member_edges.items():
        for edge in edges:
            _connect(run, node, edge, (index,))
    if not group.edges and not group.member_edges:
        return _begin(turn, node, everyone)
    return _begin(turn, node, [i for i in everyone if not node.waiting[i]])


def settle(turn: Turn, node: Node, indices: Sequence[int]) -> None:
    """Account for members that have become terminal, and for all that follows from it."""
    queue: list[tuple[Node, Sequence[int]]] = [(node, indices)]
    while queue:
        parent, ended = queue.pop()
        _close(turn, parent, ended)
        for child, met in _met_by(parent, ended):
            doomed = _begin(turn, child, met)
            if doomed:
                queue.append((child, doomed))


def _connect(run: Run, node: Node, edge: Edge, members: Sequence[int]) -> None:
    parent = run.nodes[edge.parent.id]
    if edge.kind is EdgeKind.ONE_TO_ONE:
        parent.aligned.append((node, edge.index))
        states = parent.group.states
        for index in members:
            if states[index + edge.index] < FIRST_TERMINAL:
                node.waiting[index] += 1
        return
    start, stop = edge.index, edge.stop
    remaining = sum(state < FIRST_TERMINAL for state in parent.group.states[start:stop])
    if not remaining:
        return
    gate = Gate(node, members, start, stop, remaining)
    if stop - start == 1:
        parent.member_gates.setdefault(start, []).append(gate)
    else:
        parent.gates.append(gate)
    for index in members:
        node.waiting[index] += 1


def _met_by(parent: Node, ended: Sequence[int]) -> Iterable[tuple[Node, list[int]]]:
    for child, offset in parent.aligned:
        size = child.group.size
        yield child, _lower(child, [i - offset for i in ended if 0 <= i - offset < size])
    if parent.member_gates:
        for index in ended:
            for gate in parent.member_gates.pop(index, ()):
                yield gate.node, _lower(gate.node, gate.members)
    for gate in parent.gates:
        gate.remaining -= sum(gate.start <= i < gate.stop for i in ended)
        if not gate.remaining:
            yield gate.node, _lower(gate.node, gate.members)
    parent.gates = [gate for gate in parent.gates if gate.remaining]


def _lower(node: Node, members: Iterable[int]) -> list[int]:
    """Take one edge off these members; return those that wait for nothing more."""
    waiting = node.waiting
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
            (ready if _can_run(turn, group, index) else doomed).append(index)
    elif run.cancelled_by:
        ready = [i for i in members if group.states[i] < FIRST_TERMINAL]
    for index in ready:
        move(group, index, StateType.PENDING)
    if ready:
        run.lane(node).add(node, ready)
    return doomed


def _may_fail(run: Run, group: Group) -> bool:
    if any(run.nodes[edge.parent.id].failures for edge in group.edges):
        return True
    # Edges of members may lead anywhere: looking at each costs as much as deciding.
    return bool(group.member_edges)


def _can_run(turn: Turn, group: Group, index: int) -> bool:
    run = turn.run
    roots: dict[tuple[Group, int], None] = {}
    skipped = ""
    for edge in group.edges_of(index):
        if not run.nodes[edge.parent.id].failures:
            continue
        found, skip = _roots_of(run, edge, index)
        if edge.allow_failure:
            for parent, member in found:
                parent.handled.add(member)
                turn.record(parent, member)
            continue
        roots.update(dict.fromkeys(found))
        skipped = skipped or skip
    if roots:
        group.roots[index] = tuple(roots)
        group.errors[index] = _upstream_error(group, index)
        move(group, index, StateType.UPSTREAM_FAILED)
    elif skipped:
        group.errors[index] = ErrorInfo("", skipped, failure_class=FailureClass.UPSTREAM)
        move(group, index, StateType.SKIPPED)
    return not roots and not skipped


def _roots_of(run: Run, edge: Edge, index: int) -> Roots:
    parent = edge.parent
    if edge.kind is EdgeKind.ONE_TO_ONE:
        members = range(index + edge.index, index + edge.index + 1)
    else:
        members = range(edge.index, edge.stop)
        if edge in run.roots_of_edges:
            return run.roots_of_edges[edge]
    roots: dict[tuple[Group, int], None] = {}
    skipped = ""
    for member in members:
        state = StateType(parent.states[member])
        if state is StateType.UPSTREAM_FAILED:
            roots.update(dict.fromkeys(parent.roots[member]))
        elif state in FAILURES:
            roots[parent, member] = None
        elif state not in SUCCESSES:
            skipped = skipped or f"{parent.key(member)} was skipped"
    found = tuple(roots), skipped
    if len(members) > 1:
        run.roots_of_edges[edge] = found
    return found


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
    for index in ended:
        group.payloads[index] = None
        if group.states[index] not in SUCCESSES:
            node.failures += 1
    node.open -= len(ended)
    run.open -= len(ended)
    if not node.open:
        group.shared = b""
    turn.record_all(group, ended)
