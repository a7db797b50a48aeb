"""Drawing a graph of groups: as a tree of text, as Mermaid.

A drawing has one box a group, so a map over a million items is one box. Groups of single calls may
depend on each other in turns (`b[0]` on `a[0]`, `a[1]` on `b[0]`): between boxes that is a loop,
and its arrow to an earlier box is one that goes back.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from raysched.graph.group import Edge, EdgeKind, Group
from raysched.graph.payload import object_name, objects_in

MOST_NAMED_MEMBERS = 3
"""More members of one parent than this are not listed one by one."""

WIDEST_LABEL = 34
"""Labels up to this width (characters) have their arrows below each other."""

ONCE_PER_WORKER = "once per worker"

GOES_ON = "goes on at run time, when it has a result"


class Plan(Protocol):
    """What a flow recorded before anything ran."""

    @property
    def flow(self) -> str:
        """Name of the flow."""

    @property
    def groups(self) -> Sequence[Group]:
        """Groups, in the order of their calls."""

    @property
    def continues(self) -> bool:
        """Whether the flow waits for a result then, and goes on by what comes out."""

    @property
    def subflows(self) -> "Sequence[Plan]":
        """Flows that it called."""


class Kind(StrEnum):
    """What a box stands for."""

    TASK = "task"
    FLOW = "flow"
    MARK = "mark"
    """The place where the graph goes on dynamically."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """How one box depends on another.

    Attributes:
        parent: The other box.
        words: For people: `each`, `all`, `elements`, `many`, members such as `[1]` or `[0:5]`, and
            `after` or `after [1]` for order only. None for the one value.
    """

    parent: int
    words: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What stands at the arrow."""
        return ", ".join(self.words)

    @property
    def only_order(self) -> bool:
        """Whether no value goes along."""
        return bool(self.words) and all(word.startswith("after") for word in self.words)


@dataclass(frozen=True, slots=True)
class Box:
    """One group, or one subflow, as it is drawn.

    Attributes:
        id: Ordinal in the drawing.
        name: The task's or flow's name, or the text of a mark.
        arrows: What it depends on, one arrow a parent. The first boxes of a subflow depend on the
            box of the flow.
        size: Number of task runs.
        kind: What it stands for.
        objects: Tokens of the objects that it shares with others in each worker, sorted by name.
        note: What else there is to say of it, for people, or "".
    """

    id: int
    name: str
    arrows: tuple[Arrow, ...] = ()
    size: int = 1
    kind: Kind = Kind.TASK
    objects: tuple[str, ...] = ()
    note: str = ""

    @property
    def label(self) -> str:
        """What stands in the box."""
        return f"{self._what} ({self.note})" if self.note else self._what

    @property
    def _what(self) -> str:
        match self.kind:
            case Kind.FLOW:
                return f"flow {self.name}"
            case Kind.MARK:
                return f"\N{MIDLINE HORIZONTAL ELLIPSIS} {self.name}"
            case Kind.TASK if self.size > 1:
                return f"{self.name} \N{MULTIPLICATION SIGN}{self.size:,}"
            case _:
                return self.name

    @property
    def object_labels(self) -> list[str]:
        """What stands at the objects."""
        return [f"{object_name(token)} {ONCE_PER_WORKER}" for token in self.objects]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn.

    Attributes:
        title: The flow.
        boxes: Groups, subflows and marks, in the order in which the flow came to them.
    """

    title: str
    boxes: tuple[Box, ...]

    @classmethod
    def of(cls, plan: Plan) -> "Drawing":
        """Return the drawing of a plan."""
        boxes: list[Box] = []
        _draw(plan, boxes, {}, ())
        return cls(plan.flow, tuple(boxes))

    def tree(self) -> str:
        """Return the graph as lines of text.

        Each box stands below the last one that it depends on, an only child right below its
        parent; after the arrow stands everything that it depends on.
        """
        names = {box.id: box.name for box in self.boxes}
        children = self._children()
        lines = [(self.title, "")]
        stack: list[tuple[Box, str, str]] = []

        def push(parent: int | None, indent: str) -> None:
            below = children[parent]
            if parent is not None and len(below) == 1:
                stack.append((below[0], f"{indent}↓ ", indent))
                return
            for position, child in reversed(list(enumerate(below))):
                last = position == len(below) - 1
                head, rest = ("└─ ", "   ") if last else ("├─ ", "│  ")
                stack.append((child, indent + head, indent + rest))

        push(None, "")
        while stack:
            box, head, rest = stack.pop()
            words = [
                _needs(arrow, names[arrow.parent], box)
                for arrow in box.arrows
                if self.boxes[arrow.parent].kind is not Kind.FLOW
            ]
            needs = ", ".join(words + box.object_labels)
            lines.append((f"{head}{box.label}", f"  ← {needs}" if needs else ""))
            push(box.id, rest)
        width = max((len(label) for label, needs in lines if needs), default=0)
        width = min(width, WIDEST_LABEL)
        return "\n".join(f"{label:{width if needs else 0}}{needs}" for label, needs in lines)

    def mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""
        lines = ["---", f"title: {_quoted(self.title)}", "---", "flowchart TD"]
        for box in self.boxes:
            left, right = _SHAPES[box.kind]
            lines.append(f"  g{box.id}{left}{_quoted(box.label)}{right}")
        for box in self.boxes:
            for arrow in box.arrows:
                line = "-.->" if arrow.only_order else "-->"
                label = f"|{_quoted(arrow.label)}|" if arrow.label else ""
                lines.append(f"  g{arrow.parent} {line}{label} g{box.id}")
        users = [(token, box) for box in self.boxes for token in box.objects]
        ids = {token: number for number, token in enumerate(dict(users))}
        for token, number in ids.items():
            lines.append(f"  o{number}[({_quoted(object_name(token))})]")
        for token, box in users:
            lines.append(f"  o{ids[token]} -.-o|{ONCE_PER_WORKER}| g{box.id}")
        return "\n".join(lines)

    def _children(self) -> Mapping[int | None, list[Box]]:
        children: defaultdict[int | None, list[Box]] = defaultdict(list)
        for box in self.boxes:
            above = [arrow.parent for arrow in box.arrows if arrow.parent < box.id]
            children[max(above, default=None)].append(box)
        return children


_SHAPES = {Kind.TASK: ("[", "]"), Kind.FLOW: ("[[", "]]"), Kind.MARK: ("([", "])")}
"""Rectangle, subroutine, stadium."""


def _draw(plan: Plan, boxes: list[Box], ids: dict[Group, int], above: tuple[Arrow, ...]) -> None:
    """Append the boxes of a plan; `above` are the arrows of those that depend on nothing else."""
    ids |= {group: number for number, group in enumerate(plan.groups, len(boxes))}
    for group in plan.groups:
        arrows = tuple(_arrows(group, ids)) or above
        name = group.spec.name
        boxes.append(Box(ids[group], name, arrows, group.size, objects=_objects(group)))
    for subflow in plan.subflows:
        number = len(boxes)
        boxes.append(Box(number, subflow.flow, above, kind=Kind.FLOW))
        _draw(subflow, boxes, ids, (Arrow(number),))
    if plan.continues:
        boxes.append(Box(len(boxes), GOES_ON, above, kind=Kind.MARK))


def _arrows(group: Group, ids: Mapping[Group, int]) -> Iterator[Arrow]:
    words: defaultdict[int, dict[str, None]] = defaultdict(dict)
    for edge in _edges(group):
        word = edge_words(edge.kind, edge.index, edge.stop, edge.parent)
        words[ids[edge.parent]][word] = None
    for parent, found in words.items():
        if len(found) > MOST_NAMED_MEMBERS:
            yield Arrow(parent, ("many",))
        else:
            yield Arrow(parent, tuple(word for word in found if word))


def _objects(group: Group) -> tuple[str, ...]:
    found: set[str] = set()
    for payload in (group.shared, *group.payloads):
        found |= objects_in(payload or b"")
    return tuple(sorted(found, key=object_name))


def _edges(group: Group) -> Iterator[Edge]:
    yield from group.edges
    for edges in group.member_edges.values():
        yield from edges


class Members(Protocol):
    """The task runs of a group, as far as an arrow has to know them."""

    @property
    def first(self) -> int:
        """Index of the first one among the flow run's task runs of that name."""

    @property
    def size(self) -> int:
        """How many there are."""


def edge_words(kind: EdgeKind, index: int, stop: int, parent: Members) -> str:
    """Return how an arrow says what it depends on; see `Arrow.words` and `graph.group.Edge`.

    An `index` of -1 stands for members that differ from one task run to the other.
    """
    if index < 0:
        return "many" if parent.size > 1 else ""
    match kind:
        case EdgeKind.ONE_TO_ONE:
            return "each"
        case EdgeKind.SCATTER:
            return "elements"
        case EdgeKind.GATHER:
            return _members(index, stop, parent) or "all"
        case EdgeKind.BROADCAST:
            return _members(index, stop, parent)
        case EdgeKind.AFTER:
            return f"after {_members(index, stop, parent)}".rstrip()


def _members(index: int, stop: int, parent: Members) -> str:
    """Return the needed members by their indices in the flow run, or "" for all there are."""
    if index == 0 and stop == parent.size:
        return ""
    first, stop = parent.first + index, parent.first + stop
    return f"[{first}]" if stop == first + 1 else f"[{first}:{stop}]"


def _needs(arrow: Arrow, name: str, box: Box) -> str:
    if arrow.parent == box.id:
        return "earlier ones of its own"
    return ", ".join(_phrase(word, name) for word in arrow.words or ("",))


def _phrase(word: str, name: str) -> str:
    if word.endswith("]"):
        return word.replace("[", f"{name}[")
    if word == "elements":
        return f"elements of {name}"
    return f"{word} {name}".lstrip()


def _quoted(text: str) -> str:
    return '"' + text.replace("&", "&amp;").replace('"', "&quot;") + '"'
