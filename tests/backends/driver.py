"""Uses both nodes of a cluster, then loses one; prints what came of it as JSON."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

# Of the harness beside this script.
sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
import psutil

from backends.harness import Harness
from raysched.backends.ray.backend import RayBackend
from raysched.errors import ResultLost
from raysched.graph.payload import reduce_dependency
from raysched.model.options import TaskSpec
from raysched.model.values import LargeValue
from raysched.worker.protocol import LARGE

ELSEWHERE = {"resources": {"elsewhere": 1}}


def use_both_nodes(harness: Harness, module: str) -> dict[str, Any]:
    """Run a function of the project on workers that were there before they knew of it."""
    function = importlib.import_module(module).where
    found = {}
    for place, options in (("head", {}), ("elsewhere", ELSEWHERE)):
        harness.run(lambda: None, ray=options)
        ended = harness.run(function, ray=options)
        assert not ended.errors, ended.errors
        found[place] = harness.value(ended)
    return found


def lose_a_node(harness: Harness) -> dict[str, Any]:
    """Kill all of a node's processes while a unit runs and a value is there."""
    made = harness.run(lambda: np.zeros(1_000_000), ray=ELSEWHERE).values[0]
    kept = harness.run(lambda: np.zeros(1_000_000)).values[0]
    assert isinstance(made, LargeValue)
    assert isinstance(kept, LargeValue)
    before = harness.backend.are_lost([made, kept])
    raylet = psutil.Process(harness.value(harness.run(os.getppid, ray=ELSEWHERE)))
    spec = TaskSpec("sleep", _sleep, ray=ELSEWHERE)
    number = harness.submit(spec, [(600,)])
    harness.until_began(number)
    for process in (raylet, *raylet.children(recursive=True)):
        process.kill()
    ended = harness.finish(number)
    slots = ((LARGE, (0, made.position)),)
    follower = harness.submit(TaskSpec("use", _use), [(Slot(),)], slots, (made.handle,))
    starved = harness.finish(follower)
    assert ended.lost is not None
    assert starved.lost is not None
    try:
        harness.backend.fetch(made)
        lost = ""
    except ResultLost as error:
        lost = str(error)
    return {
        "kind": ended.lost.kind,
        "evidence": ended.lost.evidence,
        "starved": starved.lost.kind,
        "before": before,
        "after": harness.backend.are_lost([made, kept, made]),
        "lost": lost,
    }


class Slot:
    """Pickles as the next slot, like the futures of the face."""

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_dependency(self)

    def identity(self) -> bytes:
        return b""

    def edge(self) -> Any:
        return None


def _use(value: Any) -> int:
    return len(value)


def _sleep(seconds: float) -> None:
    import time

    time.sleep(seconds)


if __name__ == "__main__":
    address, project, module = sys.argv[1:]
    sys.path.insert(0, project)
    harness = Harness(RayBackend(address=address, code_path=Path(project)))
    found = use_both_nodes(harness, module) | lose_a_node(harness)
    print(json.dumps(found))  # noqa: T201 - its caller reads it
    harness.backend.stop()
