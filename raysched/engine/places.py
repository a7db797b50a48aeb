"""In which worker processes the task runs of a flow run have run."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import TypeAlias

from raysched.graph.group import Group
from raysched.model.rows import PlaceRow
from raysched.model.states import FIRST_TERMINAL
from raysched.model.values import Evidence
from raysched.tracker.messages import Dispatch, Rider

Worker: TypeAlias = tuple[str, str, int, str]
"""Node id, worker id, process id, host name, as in `Report.worker`; "" and 0 for the unknown."""

NOWHERE: Worker = ("", "", 0, "")


class Places:
    """The places of one flow run, with their ids. Within turns.

    Args:
        first: The first id that no place of the run has.
    """

    def __init__(self, first: int = 1) -> None:
        self._ids: dict[Worker, int] = {NOWHERE: 0}
        self._next = count(first)
        self._fresh: list[PlaceRow] = []

    def id_of(self, worker: Worker) -> int:
        """Return the id of a place."""
        found = self._ids.get(worker)
        if found is None:
            found = self._ids[worker] = next(self._next)
            self._fresh.append(PlaceRow(found, *worker))
        return found

    def take_fresh(self) -> list[PlaceRow]:
        """Return the rows of new places, each once."""
        fresh, self._fresh = self._fresh, []
        return fresh


def worker_in(evidence: Evidence) -> Worker:
    """Return where something was lost, as far as that is known."""
    return (
        evidence.get("node_id", ""),
        evidence.get("worker_id", ""),
        evidence.get("pid", 0),
        evidence.get("host", ""),
    )


def forget(dispatched: Dispatch) -> None:
    """Note that attempts of the members of a unit are on their way, nobody knows where to."""
    for _, group, indices in _parts(dispatched):
        _fill(group, indices, 0)


def note(dispatched: Dispatch, positions: Iterable[int], open_there: set[int], place: int) -> None:
    """Note where the attempts of members of a unit run, or have run.

    Those that a unit makes for nothing but their values leave the column as it is: it tells of the
    same attempts as the columns of their times.

    Args:
        dispatched: The unit.
        positions: Which of its members.
        open_there: Those that it has not told the end of; others may run elsewhere by now.
        place: The id of the place, 0 for an unknown one.
    """
    if isinstance(positions, range) and open_there.issuperset(positions):
        for first, group, indices in _parts(dispatched):
            start, stop = max(positions.start - first, 0), max(positions.stop - first, 0)
            _fill(group, indices[start:stop], place)
        return
    for position in positions:
        if position in open_there:
            group, index = dispatched.member(position)
            _fill(group, (index,), place)


def _parts(dispatched: Dispatch) -> Iterator[tuple[int, Group, Sequence[int]]]:
    """Yield the groups of a unit: the first position, and the members from there on."""
    first = 0
    parts: tuple[Dispatch | Rider, ...] = (dispatched, *dispatched.riders)
    for part in parts:
        yield first, part.group, part.indices
        first += len(part.indices)


def _fill(group: Group, indices: Sequence[int], place: int) -> None:
    if not (group.places or place) or not indices:
        return
    if not group.places:
        group.places = array("I", bytes(4 * group.size))
    if isinstance(indices, range):
        column = slice(indices.start, indices.stop)
        if max(group.states[column]) < FIRST_TERMINAL:
            group.places[column] = array("I", (place,)) * len(indices)
            return
    for index in indices:
        if group.states[index] < FIRST_TERMINAL:
            group.places[index] = place
