"""What a worker sends to the driver, through a channel that comes and goes."""

import threading
from typing import Any

from raysched.worker.channel import Channel
from raysched.worker.progress import UnitProgress
from raysched.worker.wire import PROGRESSED

PATIENCE_SECONDS = 0.05
"""How long a thread that has something to report waits for another one that reports. Not for ever:
it may be in a finalizer, or a handler of a signal, that interrupted what the other one waits for.
Then it is reported a little later, by the thread that looks regularly."""


class Outbox:
    """Sends messages; drops them while there is no channel. Thread-safe.

    Attributes:
        channel: The channel, if there is one.
    """

    def __init__(self) -> None:
        self.channel: Channel | None = None
        # Reentrant, for the same reason.
        self._sending = threading.RLock()
        self._is_sending = False

    def connect(self, channel: Channel, progress: UnitProgress | None) -> None:
        """Send through another channel from now on.

        Args:
            channel: The channel.
            progress: The unit that runs, if one does. What it sent may not have arrived.
        """
        with self._sending:
            self.channel = channel
            if progress is not None:
                progress.send_again()

    def send(self, *message: Any) -> None:
        """Send a message."""
        channel = self.channel
        if channel is not None:
            channel.send(*message)

    def send_unsent(self, progress: UnitProgress) -> None:
        """Send what a unit has to report, unless there is more on its way than there is room."""
        # One thread at a time: what is taken first has to be sent first.
        if not self._sending.acquire(timeout=PATIENCE_SECONDS):
            return
        try:
            channel = self.channel
            if channel is not None and channel.is_clear and not self._is_sending:
                self._send_part(channel, progress)
        finally:
            self._sending.release()

    def _send_part(self, channel: Channel, progress: UnitProgress) -> None:
        self._is_sending = True
        try:
            part = progress.take_unsent()
            if part is not None:
                channel.send(PROGRESSED, progress.unit.id, *part)
        except BaseException:
            # A handler of the user's signals may raise here: what was taken may not be on its way.
            progress.send_again()
            raise
        finally:
            self._is_sending = False
