"""Values that a unit reads from the result storage before it begins, and writes when it has run."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from raysched.errors import ResultLost
from raysched.results import storage
from raysched.results.envelope import decode
from raysched.worker.context import WorkerContext
from raysched.worker.progress import UnitProgress
from raysched.worker.protocol import (
    LIST,
    RECORDED,
    STORED,
    SUCCESSES,
    SlotValue,
    Stage,
    decode_header,
)

header_of = lru_cache(maxsize=16)(decode_header)
"""Return a header, decoded once."""

READERS = 8
"""How many values are read at once: one range of an object store takes 10 to 100 ms."""

PAUSE_SECONDS = 30.0
"""How long a storage that could not be written is not tried again (seconds): one that does not
answer would hold up every unit."""

NAME_MAX_CHARACTERS = 80

_refusals: dict[str, tuple[float, str]] = {}
"""Until when a directory is not tried again, and why, by directory."""


class StoredInputs:
    """Values of task runs that ended earlier, decoded afresh for each who takes them."""

    def __init__(self) -> None:
        self._uses: Counter[str] = Counter()
        self._envelopes: dict[str, bytes] = {}
        self._decoded: dict[str, Any] = {}

    def load(self, stages: Iterable[Stage]) -> dict[str, str]:
        """Read and decode what these stages need, each value once.

        Returns:
            What is wrong with those that cannot be had, by location or name.
        """
        locations: set[str] = set()
        for kind, content in _slots(stages):
            if kind == STORED:
                locations.add(content)
                self._uses[content] += 1
            else:
                name, self._envelopes[name] = content
                self._uses[name] += 1
        missing = self._read(sorted(locations))
        for name, envelope in list(self._envelopes.items()):
            try:
                self._decoded[name] = decode(envelope)
            except Exception as error:  # noqa: BLE001 - a class of the user's may raise anything
                missing[name] = str(error)
            if self._uses[name] == 1:
                del self._envelopes[name]
        return missing

    def take(self, name: str) -> Any:
        """Return a fresh copy of a value."""
        self._uses[name] -= 1
        if name in self._decoded:
            return self._decoded.pop(name)
        value = decode(self._envelopes[name])
        if not self._uses[name]:
            del self._envelopes[name]
        return value

    def _read(self, locations: Sequence[str]) -> dict[str, str]:
        missing = {}
        with ThreadPoolExecutor(READERS, thread_name_prefix="raysched storage") as pool:
            reads = [(location, pool.submit(storage.read, location)) for location in locations]
        for location, read in reads:
            try:
                self._envelopes[location] = read.result()
            except ResultLost as error:
                missing[location] = str(error)
        return missing


def _slots(stages: Iterable[Stage]) -> Iterator[SlotValue]:
    """Yield the values of earlier task runs in the slots of all items."""
    todo: list[SlotValue] = [value for stage in stages for slots in stage.slots for value in slots]
    while todo:
        kind, content = value = todo.pop()
        if kind in {STORED, RECORDED}:
            yield value
        elif kind == LIST:
            todo += content
        elif kind == SUCCESSES:
            todo += content[0]


def keep(progress: UnitProgress, contexts: Sequence[WorkerContext]) -> None:
    """Write the large values of a unit into the result storage, where they are to be kept.

    What cannot be written is not kept, and harms nothing else.

    Args:
        progress: The unit, which has run.
        contexts: The task of each of its stages.
    """
    header, unit = header_of(progress.unit.header), progress.unit
    if not header.storage or not progress.large:
        return
    kept, durable = [], False
    for number, (position, size) in enumerate(progress.large_values()):
        context = contexts[unit.place(position)[0]]
        if context.persist and size <= header.kept_max_bytes:
            kept.append(number)
            durable = durable or context.durable
    if not kept:
        return
    again, progress.unkept = _refusals.get(header.storage, (0.0, ""))
    if time.monotonic() < again:
        return
    task = re.sub(r"[^\w-]", "_", unit.stages[0].task_name)[:NAME_MAX_CHARACTERS]
    values = [progress.large[number] for number in kept]
    try:
        locations = storage.write(header.storage, f"{task}-{unit.id}", values, durable=durable)
    except Exception as error:  # noqa: BLE001 - fsspec's file systems raise whatever they like
        progress.unkept = f"{header.storage}: {type(error).__name__}: {error}"
        _refusals.clear()
        _refusals[header.storage] = time.monotonic() + PAUSE_SECONDS, progress.unkept
        return
    progress.unkept = ""
    progress.locations = dict(zip(kept, locations, strict=True))
