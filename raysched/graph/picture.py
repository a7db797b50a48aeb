"""Pictures of a graph by matplotlib, in layers.

After Sugiyama, Tagawa and Toda (1981), Methods for visual understanding of hierarchical system
structures: each box is a layer below all that it depends on, an arrow past layers gets a bend in
each of them, and layers are ordered by the barycentres of their neighbours.
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

from raysched.errors import UsageError
from raysched.graph.drawing import Arrow, Box, Drawing, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Node: TypeAlias = tuple[int, ...]
"""A box as `(id,)`, or a bend of an arrow as `(parent, child, layer)`."""

Position: TypeAlias = tuple[float, float]

SWEEPS = 8
"""Down and up in turns; more change next to nothing."""

INCHES_ACROSS, INCHES_DOWN = 2.3, 1.0
POINTS = 9
"""Size of the letters in boxes (1/72 inch)."""

LINE = "#555555"
LOOKS = {
    Kind.TASK: ("#e8eef9", "#3b5fa8", "-"),
    Kind.FLOW: ("#fdf3e1", "#b07d2b", "-"),
    Kind.MARK: ("white", "#888888", "--"),
}
"""Colour of a box, colour and style of its edge."""


def picture(drawing: Drawing, file_format: Literal["svg", "png"]) -> bytes:
    """Return the drawing as a picture.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            f"--format {file_format} needs matplotlib: pip install 'raysched[graph]', "
            "or take mermaid or tree"
        ) from error
    places, bends = layout(drawing.boxes)
    right = max((x for x, _ in places.values()), default=0.0)
    bottom = max((y for _, y in places.values()), default=0.0)
    figure = Figure(figsize=((right + 1.2) * INCHES_ACROSS, (bottom + 1.7) * INCHES_DOWN))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.6, right + 0.6), ylim=(bottom + 0.6, -1.1))
    axes.set_axis_off()
    axes.text(-0.5, -0.75, drawing.title, fontsize=12, fontweight="bold", va="center")
    for box in drawing.boxes:
        _paint_box(axes, box, places[(box.id,)])
        for arrow in box.arrows:
            if arrow.parent != box.id:
                way = [(arrow.parent,), *bends.get((arrow.parent, box.id), ()), (box.id,)]
                _paint_arrow(axes, [places[node] for node in way], arrow, _half_height(box))
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, dpi=150)
    return buffer.getvalue()


def layout(boxes: Iterable[Box]) -> tuple[dict[Node, Position], dict[tuple[int, int], list[Node]]]:
    """Return where boxes and bends are, and the bends of the arrow from one box to another.

    Positions are (place in the layer, layer), both from 0; a place may be half of one.
    """
    depth: dict[int, int] = {}
    layers: defaultdict[int, list[Node]] = defaultdict(list)
    bends: dict[tuple[int, int], list[Node]] = {}
    neighbours: defaultdict[Node, list[Node]] = defaultdict(list)
    for box in boxes:
        # An arrow from a later box goes back up and has no say in the order.
        parents = [arrow.parent for arrow in box.arrows if arrow.parent < box.id]
        depth[box.id] = max((depth[parent] for parent in parents), default=-1) + 1
        layers[depth[box.id]].append((box.id,))
        for parent in parents:
            way = [(parent, box.id, layer) for layer in range(depth[parent] + 1, depth[box.id])]
            bends[parent, box.id] = list(way)
            for _, _, layer in way:
                layers[layer].append((parent, box.id, layer))
            nodes: list[Node] = [(parent,), *way, (box.id,)]
            for above, below in pairwise(nodes):
                neighbours[above].append(below)
                neighbours[below].append(above)
    return _order(layers, neighbours), bends


def _order(
    layers: Mapping[int, list[Node]], neighbours: Mapping[Node, Sequence[Node]]
) -> dict[Node, Position]:
    places: dict[Node, Position] = {}
    widest = max(map(len, layers.values()), default=1)

    def place(layer: int) -> None:
        left = (widest - len(layers[layer])) / 2
        for position, node in enumerate(layers[layer]):
            places[node] = (left + position, float(layer))

    for layer in layers:
        place(layer)
    for sweep in range(SWEEPS):
        towards = -1 if sweep % 2 == 0 else 1
        for layer in sorted(layers, reverse=towards > 0):
            wanted = {
                node: _barycentre(node, layer + towards, places, neighbours)
                for node in layers[layer]
            }
            layers[layer].sort(key=lambda node: wanted[node])
            place(layer)
    return places


def _barycentre(
    node: Node,
    layer: int,
    places: Mapping[Node, Position],
    neighbours: Mapping[Node, Sequence[Node]],
) -> float:
    near = [places[other][0] for other in neighbours.get(node, ()) if places[other][1] == layer]
    return sum(near) / len(near) if near else places[node][0]


def _paint_box(axes: "Axes", box: Box, place: Position) -> None:
    fill, edge, line = LOOKS[box.kind]
    axes.text(
        *place,
        "\n".join(_lines(box)),
        ha="center",
        va="center",
        fontsize=POINTS,
        style="italic" if box.kind is Kind.MARK else "normal",
        bbox={
            "boxstyle": "round,pad=0.5",
            "facecolor": fill,
            "edgecolor": edge,
            "linestyle": line,
        },
        zorder=3,
    )


def _paint_arrow(axes: "Axes", points: Sequence[Position], arrow: Arrow, gap: float) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    back = points[0][1] >= points[-1][1]
    sideways = 0.6 if back else 0.0
    end_x, end_y = points[-1]
    points = [*points[:-1], (end_x, end_y + gap if back else end_y - gap)]
    vertices, codes = [points[0]], [Path.MOVETO]
    for (x, y), (next_x, next_y) in pairwise(points):
        middle = (y + next_y) / 2
        vertices += [(x + sideways, middle), (next_x + sideways, middle), (next_x, next_y)]
        codes += [Path.CURVE4] * 3
    axes.add_patch(
        FancyArrowPatch(
            path=Path(vertices, codes),
            arrowstyle="-|>",
            mutation_scale=10,
            shrinkA=0,
            shrinkB=0,
            color=LINE,
            linewidth=1,
            linestyle="--" if back or arrow.only_order else "-",
            fill=False,
            zorder=1,
        )
    )
    if arrow.label:
        x = (points[-2][0] + points[-1][0] * 2) / 3
        y = points[-2][1] + (points[-1][1] - points[-2][1]) * 0.6
        halo = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
        axes.text(x, y, arrow.label, fontsize=7, color=LINE, ha="center", bbox=halo, zorder=2)


def _half_height(box: Box) -> float:
    """Return half the height of a painted box, in layers."""
    lines = len(_lines(box))
    return (lines * 0.6 + 0.5) * POINTS / 72 / INCHES_DOWN


def _lines(box: Box) -> list[str]:
    return [line for label in (box.label, *box.object_labels) for line in _folded(label)]


def _folded(label: str, width: int = 22) -> list[str]:
    """Break a label at underscores and spaces, so that boxes of one layer do not overlap."""
    lines = [""]
    for part in label.replace("_", "_\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return [line.strip() for line in lines]
