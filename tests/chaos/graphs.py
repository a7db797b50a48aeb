"""Random flows for the chaos suite: described by data, run by `play`, judged by `oracle`.

A flow is a list of nodes, each of which becomes the task runs of one task: a single one, a loop of
submits, a map, or a map over an earlier node. What a task run does beside computing a number from
all that it was given, its *deed*, is one of its arguments.
"""

import asyncio
import json
import os
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from chaos.log import note
from chaos.sides import Side, do, make_sides
from raysched import (
    Task,
    TaskFuture,
    allow_failure,
    flow,
    min_success,
    runtime,
    skip,
    task,
    unmapped,
    wait,
)
from raysched.model.triggers import TriggerRule

LATE_SECONDS = 3.0
"""`timeout_seconds` of tasks in which one may take too long."""

FALLBACK = -1
"""The value of fallbacks."""

CHILD = 600
"""How long processes would live that task runs start (seconds)."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a node needs of an earlier one.

    Attributes:
        node: Position of the earlier one.
        how: `each` item by item, `one` its first task run, `all` of them as a list, or `wait` for
            all without their values.
        allow: Whether failures are handed over.
    """

    node: int
    how: str
    allow: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One task of a flow, with all its task runs.

    Attributes:
        kind: `one`, `loop`, `map`, or `each` over the first of its needs.
        size: Number of task runs.
        needs: What it needs.
        deeds: What some of its task runs do, by position.
        rule: Its trigger rule.
        retries: See `@task`.
        crash_retries: See `@task`.
        max_failures: See `@task`; 0 for None.
        timed: Whether it has a timeout.
        fallback: Whether it has a fallback.
        is_async: Whether its function is `async def`.
        alone: Whether it has `batch=False`.
        elsewhere: Whether it runs on the second node only.
        milliseconds: How long each of its task runs takes at least.
        waited: Whether the flow waits for it before it goes on.
    """

    kind: str
    size: int
    needs: tuple[Need, ...] = ()
    deeds: dict[int, str] = field(default_factory=dict)
    rule: str = "all_success"
    retries: int = 0
    crash_retries: int = 8
    max_failures: int = 0
    timed: bool = False
    fallback: bool = False
    is_async: bool = False
    alone: bool = False
    elsewhere: bool = False
    milliseconds: int = 0
    waited: bool = False

    def deed(self, index: int) -> str:
        """Return what a task run does."""
        return self.deeds.get(index, "ok")


@dataclass(frozen=True, slots=True)
class Graph:
    """A flow.

    Attributes:
        nodes: Its tasks, in the order in which they are called.
        takes: Whether it takes all failures in the end, or only waits.
        sides: What it does beside that.
    """

    nodes: tuple[Node, ...]
    takes: bool
    sides: tuple[Side, ...] = ()

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Graph":
        """Return what `to_json` has written."""
        told = json.loads(text)
        nodes = [
            Node(
                **{
                    **node,
                    "needs": tuple(Need(**need) for need in node["needs"]),
                    "deeds": {int(index): deed for index, deed in node["deeds"].items()},
                }
            )
            for node in told["nodes"]
        ]
        return cls(tuple(nodes), told["takes"], tuple(Side(**side) for side in told["sides"]))


DEEDS = ("fail", "fail", "fail once", "fail once", "skip", "exit")
"""What task runs do in any process."""

DEADLY = ("die", "die once")
"""What they do only where the process is not the driver's."""

RULES = (*(rule.value for rule in TriggerRule if rule is not TriggerRule.ALL_DONE_SETUP_SUCCESS),)


def make(seed: int, *, inline: bool = False, two_nodes: bool = False) -> Graph:
    """Make up a flow.

    Args:
        seed: Equal ones make equal flows.
        inline: Whether it runs in the driver's process.
        two_nodes: Whether some tasks run on the second node only.
    """
    chance = Random(seed)
    nodes: list[Node] = []
    late = chance.randrange(12)
    for number in range(chance.randint(3, 9)):
        node = _node(chance, nodes, inline=inline, two_nodes=two_nodes)
        if number == late and not inline:
            index = chance.randrange(node.size)
            node = _changed(node, timed=True, deeds=node.deeds | {index: "late"})
        nodes.append(node)
    takes = chance.random() < 0.5
    return Graph(tuple(nodes), takes, make_sides(chance, len(nodes), inline=inline))


def _changed(node: Node, **changes: Any) -> Node:
    told = {name: getattr(node, name) for name in Node.__slots__}
    return Node(**told | changes)


def _node(chance: Random, earlier: list[Node], *, inline: bool, two_nodes: bool) -> Node:
    rule = chance.choice((*RULES, "min_success")) if chance.random() < 0.3 else "all_success"
    needs = _needs(chance, earlier, may_allow=rule == "all_success")
    kinds = ["one", "loop", "map", "map"]
    if needs and needs[0].how == "each":
        kinds = ["each"]
    kind = chance.choice(kinds)
    sizes = {"one": 1, "each": earlier[needs[0].node].size if kind == "each" else 0}
    size = sizes.get(kind) or chance.randint(1, 12)
    some = (*DEEDS, *(() if inline else DEADLY))
    share = chance.choice((0, 0.05, 0.3))
    deeds = {i: chance.choice(some) for i in range(size) if chance.random() < share}
    return Node(
        kind,
        size,
        needs,
        deeds,
        rule,
        retries=chance.choice((0, 0, 1, 2)),
        # Between many crashes there are many delays.
        crash_retries=chance.choice((1, 0) if "die" in deeds.values() else (8, 8, 8, 1, 0)),
        max_failures=chance.choice((1, 2)) if kind == "map" and chance.random() < 0.15 else 0,
        timed=not inline and chance.random() < 0.1,
        fallback=chance.random() < 0.1,
        is_async=chance.random() < 0.15,
        alone=chance.random() < 0.15,
        elsewhere=two_nodes and chance.random() < 0.3,
        milliseconds=chance.choice((0, 0, 5, 10) if inline else (0, 20, 50, 150, 300)),
        waited=chance.random() < 0.3,
    )


def _needs(chance: Random, earlier: list[Node], *, may_allow: bool) -> tuple[Need, ...]:
    number = min(len(earlier), chance.choice((0, 1, 1, 1, 2, 3)))
    recent = range(max(0, len(earlier) - 4), len(earlier))
    chosen = chance.sample(recent, min(number, len(recent)))
    hows = [chance.choice(("one", "all", "wait")) for _ in chosen]
    if hows and chance.random() < 0.5:
        hows[0] = "each"
    return tuple(
        Need(node, how, allow=may_allow and how != "wait" and chance.random() < 0.2)
        for node, how in zip(chosen, hows, strict=True)
    )


def value_of(name: str, index: int, deed: str, given: object) -> int:
    """Return the number that a task run computes."""
    return crc32(repr((name, index, deed, given)).encode()) % 1_000_003


def described(value: object) -> object:
    """Return what a task run was given; of failures only that they are ones."""
    if isinstance(value, BaseException):
        return "failure"
    if isinstance(value, list | tuple):
        return [described(one) for one in value]
    return value


class Told(NamedTuple):
    """What a task run is told.

    Attributes:
        place: Directory of its story.
        number: Its position in its node.
        deed: What it does.
        milliseconds: How long it takes at least.
    """

    place: str
    number: int
    deed: str
    milliseconds: int


def _begin(told: Told) -> str:
    name = str(runtime.task_run.task_name)
    note(told.place, "begins", f"{name}[{told.number}]", runtime.task_run.run_count, os.getpid())
    return name


def _act(name: str, told: Told, *given: Any) -> int:
    place, index, deed, _ = told
    key = f"{name}[{index}]"
    match deed:
        case "fail":
            raise ValueError(key)
        case "fail once" if runtime.task_run.run_count == 1:
            raise OSError(key)
        case "exit":
            raise SystemExit(key)
        case "skip":
            skip(key)
        case "late":
            child = subprocess.Popen(["sleep", str(CHILD)])
            note(place, "child", key, child.pid)
            child.wait()
        case "die":
            os._exit(1)
        case "die once":
            try:
                (Path(place) / f"{key} died").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os._exit(1)
        case _:
            pass
    return value_of(name, index, deed, [described(one) for one in given if one is not None])


@task
def work(told: Told, first: Any = None, second: Any = None, third: Any = None) -> int:
    """Take its time, and do its deed."""
    name = _begin(told)
    time.sleep(told.milliseconds / 1000)
    return _act(name, told, first, second, third)


@task
async def work_later(told: Told, first: Any = None, second: Any = None, third: Any = None) -> int:
    """Do as `work`, beside others."""
    name = _begin(told)
    await asyncio.sleep(told.milliseconds / 1000)
    return _act(name, told, first, second, third)


def name_of(number: int) -> str:
    """Return the name of the task of a node."""
    return f"n{number}"


def _task_of(number: int, node: Node) -> Task[..., Any]:
    options: dict[str, Any] = {
        "name": name_of(number),
        "retries": node.retries,
        "crash_retries": node.crash_retries,
        "trigger_rule": min_success(0.5) if node.rule == "min_success" else node.rule,
    }
    if node.max_failures:
        options["max_failures"] = node.max_failures
    if node.timed:
        options["timeout_seconds"] = LATE_SECONDS
    if node.fallback:
        options["fallback"] = FALLBACK
    if node.alone:
        options["batch"] = False
    if node.elsewhere:
        options["resources"] = {"elsewhere": 0.01}
    # What takes too long is in a system call.
    runs_later = node.is_async and "late" not in node.deeds.values()
    fn: Task[..., Any] = work_later if runs_later else work
    return fn.with_options(**options)


def _submit(number: int, graph: Graph, place: str, made: list[Any]) -> Any:
    node = graph.nodes[number]
    fn = _task_of(number, node)
    told = [Told(place, i, node.deed(i), node.milliseconds) for i in range(node.size)]
    after: list[TaskFuture[int]] = []
    given: list[Any] = []
    for need in node.needs:
        futures = made[need.node]
        if need.how == "wait":
            after += futures
            continue
        value = {"each": futures, "one": futures[0], "all": list(futures)}[need.how]
        given.append(allow_failure(value) if need.allow else value)
    if node.kind in {"one", "loop"}:
        return [fn.submit(one, *given, wait_for=after) for one in told]
    columns = [*given[:1], *(unmapped(value) for value in given[1:])]
    if node.kind == "map":
        columns = [unmapped(value) for value in given]
    return fn.map(told, *columns, wait_for=after)


@flow(name="chaos")
def around(graph: Graph, place: str) -> None:
    """Call all tasks of a graph, and wait for them."""
    made: list[Any] = []
    for number in range(len(graph.nodes)):
        made.append(_submit(number, graph, place, made))
        if graph.nodes[number].waited:
            _wait(place, number, made[number])
        for side in graph.sides:
            if side.after == number:
                do(place, side)
    for number, futures in enumerate(made):
        _wait(place, number, futures)
    if graph.takes:
        for futures in made:
            for future in futures:
                future.result(raise_on_failure=False)


def _wait(place: str, number: int, futures: Any) -> None:
    wait(list(futures))
    note(place, "sees", name_of(number))
