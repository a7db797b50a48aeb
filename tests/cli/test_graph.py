"""`raysched graph`, and what it draws."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from cli.commands import Command
from raysched import Flow, allow_failure, flow, once_per_worker, task, unmapped
from raysched.graph.drawing import Drawing
from raysched.graph.picture import picture


@task
def load(name: str) -> int:
    return 1


@task
def clean(item: object, other: object = None) -> int:
    return 1


@task
def merge(items: object) -> int:
    return 1


@flow
def child() -> int:
    return merge.submit(load.submit("c")).result()


@flow
def straight() -> object:
    return merge.submit(clean.submit(load.submit("a")))


@flow
def wide() -> object:
    first, second = load.submit("a"), load.submit("b")
    cleaned = clean.map([1, 2, 3])
    joined = clean.map(cleaned, unmapped(first))
    merged = merge.submit(joined)
    return clean.submit([merged, allow_failure(second)], wait_for=[first])


@flow
def dynamic() -> object:
    number = load("a")
    return clean.map(range(number))


@flow
def nested() -> object:
    before = load.submit("a")
    return before, child()


@flow
def taking_turns() -> object:
    value = load.submit("a")
    for _ in range(3):
        value = clean.submit(merge.submit(value))
    return value


def model(path: str, suffix: str = "") -> str:
    return path + suffix


@flow
def sharing() -> object:
    weights = once_per_worker(model, "weights", suffix="hidden")
    cleaned = clean.map([1, 2], weights)
    return merge.submit([weights, cleaned, once_per_worker(dict)]), clean.submit(1)


def tree(planned: Flow[[], Any]) -> str:
    return Drawing.of(planned.plan()).tree()


def test_chain_goes_straight_down() -> None:
    assert tree(straight) == "straight\n└─ load\n   ↓ clean  ← load\n   ↓ merge  ← clean"


def test_boxes_stand_below_the_last_of_their_parents() -> None:
    lines = tree(wide).splitlines()
    assert lines[:2] == ["wide", "├─ load ×2"]  # noqa: RUF001 - the sign is meant
    assert any(line.endswith("clean ×3") for line in lines)  # noqa: RUF001 - as above
    assert any(line.endswith("← load[0], each clean") for line in lines)
    assert any(line.endswith("← all clean") for line in lines)
    assert any(line.endswith("← merge, load[1], after load[0]") for line in lines)


def test_map_of_a_million_is_one_box() -> None:
    @flow
    def large() -> object:
        return clean.map(range(20_000))

    assert tree(large).splitlines()[1].endswith("clean ×20,000")  # noqa: RUF001 - as above


def test_dynamic_end_is_marked() -> None:
    assert "⋯ goes on at run time, when it has a result" in tree(dynamic)
    assert "⋯" not in tree(straight)


def test_subflow_has_its_own_branch() -> None:
    lines = tree(nested).splitlines()
    start = lines.index("├─ flow child")
    assert "load" in lines[start + 1]
    assert "merge" in lines[start + 2]
    assert "⋯" in lines[start + 3]


def test_objects_stand_at_the_tasks_that_use_them() -> None:
    assert tree(sharing).splitlines() == [
        "sharing",
        "├─ clean ×2  ← model once per worker",  # noqa: RUF001 - as above
        "│  ↓ merge   ← all clean, dict once per worker, model once per worker",
        "└─ clean",
    ]


def test_mermaid_has_a_node_for_each_object() -> None:
    lines = Drawing.of(sharing.plan()).mermaid().splitlines()
    assert sum('[("model")]' in line for line in lines) == 1
    assert sum("-.-o|once per worker|" in line for line in lines) == 3


def test_arguments_of_objects_are_not_drawn() -> None:
    drawing = Drawing.of(sharing.plan())
    drawn = drawing.tree() + drawing.mermaid() + picture(drawing, "svg").decode()
    assert "once per worker" in drawn
    assert "hidden" not in drawn


def test_groups_that_take_turns_are_drawn_with_an_arrow_back() -> None:
    drawing = Drawing.of(taking_turns.plan())
    arrows = {
        (box.name, drawing.boxes[arrow.parent].name)
        for box in drawing.boxes
        for arrow in box.arrows
    }
    assert {("merge", "clean"), ("clean", "merge")} <= arrows
    assert picture(drawing, "svg")


@pytest.mark.parametrize("planned", [straight, wide, dynamic, nested, taking_turns])
def test_mermaid_has_every_box_and_arrow(planned: Flow[[], Any]) -> None:
    drawing = Drawing.of(planned.plan())
    lines = drawing.mermaid().splitlines()
    assert lines[3] == "flowchart TD"
    assert sum("-->" in line or "-.->" in line for line in lines) == sum(
        len(box.arrows) for box in drawing.boxes
    )
    for box in drawing.boxes:
        assert any(line.startswith(f"  g{box.id}") and f'"{box.label}"' in line for line in lines)


@pytest.mark.parametrize("planned", [straight, wide, dynamic, nested, sharing])
def test_svg_holds_every_label(planned: Flow[[], Any]) -> None:
    drawing = Drawing.of(planned.plan())
    content = picture(drawing, "svg")
    ET.fromstring(content)  # noqa: S314 - made here
    for box in drawing.boxes:
        assert box.label.split()[0] in content.decode()


class TestCommand:
    pytestmark = pytest.mark.usefixtures("here", "own_imports")

    def test_prints_a_tree_without_running_anything(self, looking: Command) -> None:
        out = looking("graph", "sums.py", "--param", "n=5").out
        assert out.splitlines()[:3] == [
            "adding",
            "├─ parse ×5",  # noqa: RUF001 - as above
            "│  ↓ total  ← all parse",
        ]
        assert looking("runs", "--json").json() == []

    def test_as_json(self, looking: Command) -> None:
        drawn = looking("graph", "sums.py", "--json").json()
        parse, total, mark = drawn["boxes"]
        assert (parse["name"], parse["size"], parse["needs"]) == ("parse", 3, [])
        assert parse["once_per_worker"] == []
        assert total["needs"] == [{"id": 0, "how": ["all"]}]
        assert mark["kind"] == "mark"

    @pytest.mark.parametrize(
        ("name", "start"),
        [
            ("g.svg", b"<?xml"),
            ("g.png", b"\x89PNG"),
            ("g.mmd", b"---\ntitle"),
            ("g.txt", b"adding"),
        ],
    )
    def test_writes_what_the_ending_says(self, looking: Command, name: str, start: bytes) -> None:
        assert looking("graph", "sums.py", "--output", name).out == f"{name} written\n"
        assert Path(name).read_bytes().startswith(start)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--format", "svg"), "--format svg needs --output FILE"),
            (("--output", "g.doc"), "its ending names no format"),
            (("--output", "no/such/g.svg"), "No such file or directory"),
            (("--param", "n=x"), "adding(n: int = 3"),
        ],
    )
    def test_refusals(self, looking: Command, options: tuple[str, ...], message: str) -> None:
        done = looking("graph", "sums.py", *options)
        assert (done.code, done.out) == (2, "")
        assert message in done.err
