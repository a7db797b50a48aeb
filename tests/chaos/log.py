"""What task runs and flow functions of a story have written down themselves."""

import json
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


def note(place: str, *words: object) -> None:
    """Append a line to the story's log, as one write: processes may be killed in between."""
    line = json.dumps(words) + "\n"
    descriptor = os.open(Path(place) / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


@dataclass(frozen=True)
class Log:
    """What was written down.

    Attributes:
        lines: How many lines there are.
        begun: How often each key began, over all processes.
        processes: Processes that task runs were in.
        children: Processes that task runs have started.
        left: Those of them that were there at the end of the flow.
        seen: Tasks all of whose task runs the flow function has seen ended.
        sides: What each piece of work beside the graph came to, each time.
    """

    lines: int
    begun: Counter[str]
    processes: set[int]
    children: set[int]
    left: set[int]
    seen: set[str]
    sides: dict[int, list[int]]


def read_log(place: Path, after: int = 0) -> Log:
    """Read the log of a story.

    Args:
        place: The story's directory.
        after: How many lines to leave out.
    """
    path = place / "log"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()[after:]]
    begun = [line for line in lines if line[0] == "begins"]
    sides: dict[int, list[int]] = {}
    for line in lines:
        if line[0] == "side":
            sides.setdefault(line[1], []).append(line[2])
    return Log(
        after + len(lines),
        Counter(line[1] for line in begun),
        {line[3] for line in begun},
        {line[2] for line in lines if line[0] == "child"},
        {line[1] for line in lines if line[0] == "left"},
        {line[1] for line in lines if line[0] == "sees"},
        sides,
    )


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False
