"""Maps of which fewer succeeded than `min_success` asks for."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysched.model.states import SUCCESSES

if TYPE_CHECKING:
    from raysched.store.reader import Reader
    from raysched.store.views import RunView


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A map that has ended without enough successes.

    Attributes:
        task: Name of its task.
        size: Number of its task runs.
        needed: How many had to succeed.
        succeeded: How many did.
    """

    task: str
    size: int
    needed: int
    succeeded: int


def shortfalls(reader: "Reader", run: "RunView") -> list[Shortfall]:
    """Return the maps of a run that have missed their `min_success`, in order of calls."""
    wanted = {
        group.id: (group, least)
        for group in reader.groups(run)
        if (least := json.loads(group.options).get("min_success")) is not None
    }
    if not wanted:
        return []
    ended: Counter[int] = Counter()
    succeeded: Counter[int] = Counter()
    for standing in reader.standings(run):
        if standing.state.is_terminal:
            ended[standing.group] += standing.count
        if standing.state in SUCCESSES:
            succeeded[standing.group] += standing.count
    return [
        Shortfall(group.task, group.size, least, succeeded[id_])
        for id_, (group, least) in wanted.items()
        if ended[id_] == group.size and succeeded[id_] < least
    ]
