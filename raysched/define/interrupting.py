"""Breaking into users' code from outside: never into raysched's own, where it would tear things."""

import ctypes
from types import CodeType, FrameType

RETRY_SECONDS = 0.01
"""How soon an interruption is tried again that met raysched's own code (seconds)."""


def is_users(frame: FrameType | None, user_code: CodeType) -> bool:
    """Whether the innermost frame of ours is the one that has called the user's flow function."""
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith("raysched."):
            return frame.f_code is user_code
        frame = frame.f_back
    return False


def raise_in(thread: int, error: type[BaseException]) -> None:
    """Have a thread raise an exception when it next runs Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def take_late_one() -> None:
    """Raise here, not in what follows, what `raise_in` sent at the last moment.

    That happens at a jump back. Taking it back instead would leave CPython 3.11 looking for it for
    ever, under a tracer in an endless loop (its flag of pending exceptions stays set).
    """
    for _ in range(10):
        pass
