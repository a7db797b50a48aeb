"""The part of the graph between roots and victims, as SVG without any library."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from raysched.cli.markup import Markup, element
from raysched.client.why_facts import Part
from raysched.client.why_graph import drawing_of
from raysched.graph.drawing import Arrow, Box
from raysched.graph.picture import Position, layout

ACROSS, DOWN = 212, 92
"""Distance of two boxes of a layer, and of two layers (pixels)."""

WIDTH, HEIGHT = 192, 48
"""Of a box (pixels)."""

MARGIN = 14

LONGEST = 26
"""Characters that fit into a box."""


def svg(title: str, part: Part, *, run: str, most: int) -> Markup:
    """Return a picture of at most so many groups; its colours come from the page's style.

    Args:
        title: Name of the flow.
        part: The part of the graph.
        run: Id of the run, for names that are unique in the page.
        most: How many groups are drawn.
    """
    drawing = drawing_of(title, part, most=most)
    places, bends = layout(drawing.boxes)
    tip = f"tip-{run}"
    arrows = []
    for box in drawing.boxes:
        for arrow in box.arrows:
            if arrow.parent == box.id:
                continue
            way = [(arrow.parent,), *bends.get((arrow.parent, box.id), ()), (box.id,)]
            arrows += _arrow([_spot(places[node]) for node in way], arrow, tip)
    right = max((_spot(place)[0] for place in places.values()), default=0.0) + WIDTH / 2 + MARGIN
    bottom = max((_spot(place)[1] for place in places.values()), default=0.0) + HEIGHT / 2 + MARGIN
    head = element("path", d="M0 0 L8 4 L0 8 z")
    marker = element(
        "marker", head, id=tip, refX=8, refY=4, markerWidth=8, markerHeight=8, orient="auto"
    )
    return element(
        "svg",
        element("title", f"From what failed to what did not run in {title}"),
        element("defs", marker),
        *arrows,
        *(_box(box, _spot(places[box.id,])) for box in drawing.boxes),
        role="img",
        width=f"{right:g}",
        height=f"{bottom:g}",
        viewBox=f"0 0 {right:g} {bottom:g}",
    )


def _spot(place: Position) -> Position:
    """Return the middle of a box in pixels."""
    x, layer = place
    return MARGIN + WIDTH / 2 + x * ACROSS, MARGIN + HEIGHT / 2 + layer * DOWN


def _box(box: Box, spot: Position) -> Markup:
    x, y = spot
    looks = "failed" if "failed" in box.note else "followed" if box.note else "ran"
    label = replace(box, note="").label
    short = label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
    return element(
        "g",
        element("title", box.label),
        element("rect", x=x - WIDTH / 2, y=y - HEIGHT / 2, width=WIDTH, height=HEIGHT, rx=8),
        element("text", short, x=x, y=y - 3 if box.note else y + 4),
        element("text", box.note, x=x, y=y + 14, class_="note") if box.note else None,
        class_=looks,
    )


def _arrow(spots: Sequence[Position], arrow: Arrow, tip: str) -> list[Markup]:
    (x, y), (end_x, end_y) = spots[0], spots[-1]
    back = y >= end_y
    ends = (x, y + HEIGHT / 2), (end_x, end_y - HEIGHT / 2 - 1)
    if back:
        # To an earlier box, or one beside it: around the outside.
        ends = (x + WIDTH / 2, y), (end_x + WIDTH / 2 + 1, end_y)
    points = [ends[0], *spots[1:-1], ends[1]]
    way = f"M{points[0][0]:g} {points[0][1]:g}"
    for (from_x, from_y), (to_x, to_y) in pairwise(points):
        middle = (from_y + to_y) / 2
        sideways = 40 if back else 0
        way += (
            f" C{from_x + sideways:g} {middle:g} {to_x + sideways:g} {middle:g} {to_x:g} {to_y:g}"
        )
    line = element(
        "path",
        d=way,
        class_="order" if back or arrow.only_order else "needs",
        marker_end=f"url(#{tip})",
    )
    if not arrow.label:
        return [line]
    (from_x, from_y), (to_x, to_y) = points[-2], points[-1]
    at_x, at_y = (from_x + to_x) / 2 + 6, (from_y + to_y) / 2 + 4
    return [line, element("text", arrow.label, x=f"{at_x:g}", y=f"{at_y:g}", class_="how")]
