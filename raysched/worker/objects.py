"""The objects that task runs of this process share, each made when it is first needed."""

import atexit
import logging
import threading
from base64 import b64decode
from typing import TYPE_CHECKING, Any, NoReturn

from raysched.define.once_per_worker import opened
from raysched.errors import InternalError
from raysched.graph.payload import load_call, object_name, supply_objects
from raysched.worker import processes
from raysched.worker.hygiene import lasting

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_log = logging.getLogger("raysched.worker")


class NotMade(Exception):
    """The factory of an object raised; its cause is that exception, the user's own."""


class _Entry:
    """One object, or the place for it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.manager: AbstractContextManager[Any] | None = None
        self.value: Any = None


class WorkerObjects:
    """Makes each object once, and closes them in the reverse order.

    Shared by all that run units in this process, in a worker or nested in it.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._made: list[tuple[str, _Entry]] = []
        # Reentrant: a handler of a signal closes them.
        self._lock = threading.RLock()

    def get(self, token: str, recipe: bytes) -> Any:
        """Return an object, making it if there is none: a failure is tried again the next time.

        Args:
            token: What it is known by.
            recipe: How it is made (see `graph.payload.supply_objects`).

        Raises:
            NotMade: Its factory raised, or cannot be unpickled here.
        """
        entry = self._entries.get(token)
        if entry is None:
            with self._lock:
                entry = self._entries.setdefault(token, _Entry())
        if entry.manager is None:
            # One at a time; reentrant, though nothing can be made of itself.
            with entry.lock:
                if entry.manager is None:
                    self._make(token, entry, recipe)
        return entry.value

    @property
    def are_there(self) -> bool:
        """Whether there are any."""
        return bool(self._made)

    def close(self) -> None:
        """Close all; who needs one after that gets a new one."""
        with self._lock:
            made, self._made = self._made, []
            self._entries.clear()
        for token, entry in reversed(made):
            try:
                if entry.manager is not None:
                    entry.manager.__exit__(None, None, None)
            except Exception:  # noqa: BLE001 - the user's code; others are still to be closed
                _log.warning("closing what %s had made failed", object_name(token), exc_info=True)

    def _make(self, token: str, entry: _Entry, recipe: bytes) -> None:
        try:
            factory, args, kwargs = load_call(b64decode(recipe), _no_value)
            manager = opened(factory, args, kwargs)
            with lasting(), processes.lasting():
                entry.value = manager.__enter__()
        except Exception as error:
            raise NotMade(f"{object_name(token)} raised {type(error).__name__}") from error
        entry.manager = manager
        with self._lock:
            if not self._made:
                atexit.register(self.close)
            self._made.append((token, entry))


objects = WorkerObjects()
"""Those of this process."""

supply_objects(objects.get)


def _no_value(slot: int) -> NoReturn:
    raise InternalError(f"an object that is made once per worker wants the value of slot {slot}")
