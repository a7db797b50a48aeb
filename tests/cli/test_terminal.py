"""`raysched run` on a terminal, and Ctrl-C."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.commands import Command

pytestmark = pytest.mark.usefixtures("here")

PATIENCE = 60.0
"""Seconds after which something that has to come does not come any more."""

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")

WAITING = """
import time
from raysched import flow, task

@task
def wait_long(number: int) -> None:
    print("waiting", number)
    # In pieces: Python misses a signal that comes just before it sleeps until that is over.
    for _ in range(1 if number < 2 else 6000):
        time.sleep(0.1)

@flow
def waiting():
    wait_long.map(range(5)).wait()
"""

STUBBORN = """
import time
from raysched import flow, task

@task
def hold() -> None:
    while True:
        try:
            print("holding")
            # In pieces, see above.
            for _ in range(6000):
                time.sleep(0.1)
        except BaseException:
            print("still here")

@flow
def stubborn():
    hold.submit().wait()
"""


class Terminal:
    """A command on a pseudo-terminal of 80 by 24, the leader of its own process group."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raysched", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color"},
        )
        os.close(slave)
        self.raw = ""

    @property
    def text(self) -> str:
        """What came, without control sequences."""
        return CONTROL.sub("", self.raw)

    def read_until(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text):
            assert self._read(deadline), f"{pattern!r} did not come, but:\n{self.text}"

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self) -> int:
        """Reads to the end; returns the exit code."""
        while self._read(time.monotonic() + PATIENCE):
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing came any more after:\n{self.text}"
        try:
            data = os.read(self.master, 65536)
        except OSError:  # Linux says EIO when the last process has closed its end
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_live_table_is_drawn_and_taken_away(terminals: list[Terminal]) -> None:
    terminal = Terminal("run", "sums.py", "--backend", "inline")
    terminals.append(terminal)
    assert terminal.finish() == 0, terminal.text
    assert "\x1b[?25l" in terminal.raw  # the cursor is hidden …
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")  # … and comes back
    assert re.search(r"\d\d:\d\d:\d\d INFO    parse\[2\] parsing 2", terminal.text)
    assert re.search(r"✔ adding \w{8} COMPLETED in ", terminal.text)


class TestCtrlC:
    def test_once_cancels_and_says_so(self, terminals: list[Terminal], looking: Command) -> None:
        Path("waiting.py").write_text(WAITING, encoding="utf-8")
        terminal = Terminal("run", "waiting.py", "--backend", "inline")
        terminals.append(terminal)
        terminal.read_until("waiting 2")
        terminal.press_ctrl_c()
        assert terminal.finish() == 1, terminal.text
        assert "Cancelling … press Ctrl-C again to stop at once" in terminal.text
        assert re.search(r"■ waiting \w{8} CANCELLED in .*cancelled by Ctrl-C", terminal.text)
        shown = looking("show", "last", "--json").json()
        assert shown["state"] == "CANCELLED"
        assert shown["tasks"] == {"COMPLETED": 2, "CANCELLED": 3}

    def test_twice_stops_at_once(self, terminals: list[Terminal], looking: Command) -> None:
        Path("stubborn.py").write_text(STUBBORN, encoding="utf-8")
        terminal = Terminal("run", "stubborn.py", "--backend", "inline")
        terminals.append(terminal)
        terminal.read_until("holding")
        terminal.press_ctrl_c()
        terminal.read_until("Cancelling …")
        terminal.read_until("still here")
        terminal.press_ctrl_c()
        assert terminal.finish() == 1, terminal.text
        assert "Stopping at once" in terminal.text
        assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
        assert looking("runs", "--json").json()[0]["state"] in {"CANCELLED", "CRASHED"}
