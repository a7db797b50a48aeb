"""Ctrl-C and SIGTERM wait for the end of a turn: half of one would leave the tracker torn."""

import _signal  # type: ignore[import-not-found] # CPython's own, without stubs
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_HELD_BACK = (int(signal.SIGINT), int(signal.SIGTERM))


class Interrupts:
    """Holds Ctrl-C and SIGTERM back during a turn: half a turn would leave the tracker torn."""

    def __init__(self) -> None:
        self._depth = 0
        self._pending: signal.Signals | None = None

    @contextmanager
    def held_back_in_turns(self) -> Iterator[None]:
        """Have signals obey `held_back` inside the block, where the main thread waits."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

        def on_signal(number: int, frame: FrameType | None) -> None:
            # Who presses Ctrl-C again will not wait for a store that is away.
            if self._depth and not self._pending:
                self._pending = signal.Signals(number)
            else:
                handlers[number](number, frame)

        # Without signal's own search for enum members, which takes ten times as long.
        for number in _HELD_BACK:
            handler = _signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                _signal.signal(number, on_signal)
        try:
            yield
        finally:
            for each, before in handlers.items():
                _signal.signal(each, before)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Hold signals back until the end of the block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._raise_pending()

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Let signals through inside the block, within one that holds them back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        depth, self._depth = self._depth, 0
        try:
            self._raise_pending()
            yield
        finally:
            self._depth = depth

    def _raise_pending(self) -> None:
        pending = self._pending
        if pending is not None and not self._depth:
            self._pending = None
            signal.raise_signal(pending)
