"""The user's line that failed, with the lines around it if they are still what ran."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from raysched.client.why_facts import Source
from raysched.model.values import Frame

AROUND = 3
"""Lines before and after the one that failed."""

MOST_CHARACTERS = 300
"""Of a line; generated code has longer ones."""


def source_of(frames: Sequence[Frame], started: int) -> Source | None:
    """Return the innermost line of the user's own code, or None if no frame is the user's.

    The file may be another one than the worker had, or a newer one: what stands around the line is
    told only if the line is still the one that the traceback has.

    Args:
        frames: Frames of the innermost cause, outermost first.
        started: When the run started (ns since the epoch).
    """
    own = [frame for frame in frames if frame["own"]]
    if not own:
        return None
    frame = own[-1]
    file, line, code = frame["file"], frame["line"], frame["code"]
    kept = ((line, code),) if code else ()
    path = Path(file)
    try:
        lines = _around(path, line)
        newer = path.stat().st_mtime_ns > started
    except (OSError, ValueError):
        remark = "the file is not on this machine"
        return Source(file, line, frame["function"], kept, remark)
    # The worker has cut a long line.
    here = dict(lines).get(line, "").strip()
    if not here.startswith(code.removesuffix("…")):
        remark = "another line stands there now: the file was changed since"
        return Source(file, line, frame["function"], kept, remark)
    remark = "the file was changed since the run started, but not this line" if newer else ""
    return Source(file, line, frame["function"], tuple(lines), remark)


def _around(path: Path, line: int) -> list[tuple[int, str]]:
    first = max(1, line - AROUND)
    with path.open(encoding="utf-8", errors="replace") as file:
        found = islice(file, first - 1, line + AROUND)
        return [
            (number, text.rstrip()[:MOST_CHARACTERS]) for number, text in enumerate(found, first)
        ]
