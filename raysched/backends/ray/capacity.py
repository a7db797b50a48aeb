"""How many units of a task fit on a cluster, from what its nodes have in total."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ByteSize
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from raysched.engine.ports import Capacity

SLOTS_PER_CPU_OF_FREE_TASKS = 4
"""Units at once on each CPU of a node, for tasks that ask for no resource: each is a process."""

_WORDS = {"CPU": "num_cpus", "GPU": "num_gpus"}
"""Ray's options by the name of the resource that they ask for."""

_IN_BYTES = frozenset({"memory", "object_store_memory"})


@dataclass(frozen=True, slots=True)
class Node:
    """A place for tasks: a node, or a bundle of a placement group.

    Attributes:
        id: Ray's node id in hexadecimal, or "".
        resources: Total amounts by resource name (memory in bytes).
        labels: Its labels.
        count: How many of this kind there can be.
    """

    id: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    count: int = 1


def capacity(options: Mapping[str, Any], nodes: Sequence[Node]) -> Capacity:
    """Return how many tasks with these options `nodes` can run at once.

    Args:
        options: Ray's task options.
        nodes: The nodes that are alive, or that an autoscaler can add.
    """
    if not nodes:
        return Capacity(0, "a node; none of the cluster is alive")
    nodes, lacking = _eligible(options, nodes)
    if not nodes:
        return Capacity(0, lacking)
    wanted = _wanted(options)
    slots = sum(node.count * _fits(wanted, node.resources) for node in nodes)
    return Capacity(slots) if slots else Capacity(0, _lacking(wanted, nodes))


def _eligible(options: Mapping[str, Any], nodes: Sequence[Node]) -> tuple[Sequence[Node], str]:
    strategy = options.get("scheduling_strategy")
    if isinstance(strategy, PlacementGroupSchedulingStrategy):
        bundles = strategy.placement_group.bundle_specs
        index = strategy.placement_group_bundle_index
        chosen = bundles if index < 0 else bundles[index : index + 1]
        return [Node("", bundle) for bundle in chosen], f"bundle {index} of the placement group"
    if isinstance(strategy, NodeAffinitySchedulingStrategy) and not strategy.soft:
        there = [node for node in nodes if node.id == strategy.node_id]
        return there, f"node {strategy.node_id}; it is not in the cluster"
    selectors = [options.get("label_selector") or {}]
    selectors += [
        alternative.get("label_selector") or {}
        for alternative in options.get("fallback_strategy") or ()
    ]
    there = [node for node in nodes if any(_matches(node.labels, each) for each in selectors)]
    return there, f"label_selector={selectors[0]!r}; no node has such labels"


def _wanted(options: Mapping[str, Any]) -> dict[str, float]:
    wanted: dict[str, float] = {"CPU": 1.0, **(options.get("resources") or {})}
    for resource, option in (("CPU", "num_cpus"), ("GPU", "num_gpus"), ("memory", "memory")):
        if options.get(option) is not None:
            wanted[resource] = options[option]
    if options.get("accelerator_type"):
        # Each node with such an accelerator has 1 of this resource; 0.001 is what Ray asks for.
        wanted[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    return {resource: amount for resource, amount in wanted.items() if amount}


def _fits(wanted: Mapping[str, float], total: Mapping[str, float]) -> int:
    if not wanted:
        return int(max(total.get("CPU", 1), 1) * SLOTS_PER_CPU_OF_FREE_TASKS)
    return min(int(total.get(resource, 0) / amount) for resource, amount in wanted.items())


def _lacking(wanted: Mapping[str, float], nodes: Iterable[Node]) -> str:
    most = {name: max(node.resources.get(name, 0) for node in nodes) for name in wanted}
    short = {name: amount for name, amount in wanted.items() if most[name] < amount}
    if not short:
        asked = ", ".join(
            f"{_WORDS.get(name, name)}={amount_text(name, amount)}"
            for name, amount in wanted.items()
        )
        return f"{asked}; no single node has all of it"
    name, amount = next(iter(short.items()))
    needed, has = amount_text(name, amount), amount_text(name, most[name])
    if needed == has:
        needed, has = f"{amount:,.0f} bytes", f"{most[name]:,.0f}"
    where = "the largest node has" if most[name] else "the cluster has"
    return f"{_WORDS.get(name, name)}={needed}; {where} {has}"


def amount_text(resource: str, amount: float) -> str:
    """Return an amount as people write it: `2`, `0.5`, `15.6 GiB`."""
    if resource not in _IN_BYTES or not amount:
        return f"{amount:.10g}"
    return ByteSize(amount).human_readable(separator=" ").replace(".0 ", " ")


def _matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    return all(_accepts(condition, labels.get(name)) for name, condition in selector.items())


def _accepts(condition: str, value: str | None) -> bool:
    """Whether a label's value meets `a`, `!a`, `in(a, b)` or `!in(a, b)`."""
    positive = condition.removeprefix("!")
    choices = (
        [choice.strip() for choice in positive[3:-1].split(",")]
        if positive.startswith("in(")
        else [positive]
    )
    return (value in choices) is (positive == condition)
