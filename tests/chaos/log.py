"""What task runs of a story have written down themselves."""

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Log:
    """What task runs have written down themselves.

    Attributes:
        begun: How often each key began, over all processes.
        processes: Processes that task runs were in.
        children: Processes that task runs have started.
        left: Those of them that were there at the end of the flow.
        seen: Tasks all of whose task runs the flow function has seen ended.
    """

    begun: Counter[str]
    processes: set[int]
    children: set[int]
    left: set[int]
    seen: set[str]


def read_log(place: Path) -> Log:
    """Read the log of a story."""
    path = place / "log"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    begun = [line for line in lines if line[0] == "begins"]
    return Log(
        Counter(line[1] for line in begun),
        {line[3] for line in begun},
        {line[2] for line in lines if line[0] == "child"},
        {line[1] for line in lines if line[0] == "left"},
        {line[1] for line in lines if line[0] == "sees"},
    )


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False
