"""What the cache had to do with a task run: where its value is from, or why it had to run."""

import json
import time
from typing import TYPE_CHECKING

from raysched.engine.caching import MISSED, NOT_CACHED
from raysched.model.rows import ENGINE_LOGGER
from raysched.model.states import StateType
from raysched.policies.cache import RUN, nearest

if TYPE_CHECKING:
    from raysched.store.reader import Reader
    from raysched.store.views import RunView, TaskRunView

MOST_COMPARED = 200
"""Entries of the task that a miss is compared with, the newest before it."""


MOST_LOGS = 100
"""Log records of a task run that are looked through."""


def cache_story(reader: "Reader", run: "RunView", view: "TaskRunView") -> str:
    """Return what the cache had to do with a task run, or "" if nothing.

    Args:
        reader: Where it is kept.
        run: The flow run that it is in.
        view: The task run.
    """
    if view.state is StateType.CACHED:
        return view.reason
    for row in reader.last_logs(run, view.group, view.member, MOST_LOGS):
        if row.logger == ENGINE_LOGGER and row.message.startswith((MISSED, NOT_CACHED)):
            return row.message
    entry = reader.cache_entry_of(run, view.group, view.member, time.time_ns())
    if entry is None:
        return ""
    parts = json.loads(entry.parts)
    # Others of the same flow run tell nothing, unless it shares results with itself only.
    within = RUN in parts
    others = [
        json.loads(other.parts)
        for other in reader.cache_entries(
            time.time_ns(), task=view.task, before=entry.created, limit=MOST_COMPARED
        )
        if (other.run == run.id) is within
    ]
    if not others:
        first = "earlier in this flow run" if within else "before this flow run"
        return f"{MISSED}no result of the task was made {first}"
    found = nearest(parts, others) or ["the task's name or module has changed"]
    return f"{MISSED}{', '.join(found)}"
