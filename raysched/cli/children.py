"""Commands of ours in processes of their own, which outlive nothing: signals are passed on."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

ASKING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""Signals by which a person or a system asks for the end."""

FROM_KERNEL = 0x80
"""`si_code` of a signal that the kernel sends: of Ctrl-C, to all processes of the terminal's
foreground group (Linux, sigaction(2): SI_KERNEL)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Exit code as shells tell it: 128 and the signal, if it died by one.
        signal: Name of the signal that it died by, or "".
        asked: Whether somebody asked for the end.
    """

    code: int
    signal: str = ""
    asked: bool = False


def run_child(arguments: Sequence[str]) -> Ended:
    """Run `raysched` with these arguments in a process of its own, and wait for its end."""
    with _blocked(ASKING | {signal.SIGCHLD}) as before:
        command = [sys.executable, "-m", "raysched", *arguments]
        child = os.posix_spawn(sys.executable, command, os.environ, setsigmask=before)
        asked = False
        while True:
            came = signal.sigwaitinfo(ASKING | {signal.SIGCHLD})
            if came.si_signo != signal.SIGCHLD:
                asked = True
                # The terminal has told the child as well, and a second Ctrl-C means more.
                if came.si_code != FROM_KERNEL:
                    os.kill(child, came.si_signo)
                continue
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return _ended(status, asked=asked)


def pause(seconds: float) -> bool:
    """Wait so long (seconds), unless somebody asks for the end meanwhile; return whether."""
    with _blocked(ASKING):
        return signal.sigtimedwait(ASKING, seconds) is not None


def _ended(status: int, *, asked: bool) -> Ended:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return Ended(code, asked=asked)
    return Ended(128 - code, signal.Signals(-code).name, asked)


@contextmanager
def _blocked(signals: Sequence[int] | frozenset[int]) -> Iterator[set[int]]:
    """Have these signals wait to be taken; yield those that waited before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield set(before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
