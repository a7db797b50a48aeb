"""Functions that the suite runs as tasks; workers import them from here."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from raysched.define.context import attempt_context
from raysched.define.states import Completed, Failed, State

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("users.own")


def add(a: int, b: int = 1) -> int:
    return a + b


def describe(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def append(items: list[int]) -> list[int]:
    items.append(1)
    return items


def fail(message: str = "no such row") -> NoReturn:
    raise ValueError(message)


def fail_for_a_reason() -> NoReturn:
    try:
        fail()
    except ValueError as error:
        raise RuntimeError("the table is broken") from error


class OddError(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__(f"row {row}, column {column}")


class LockedError(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


def raise_odd() -> NoReturn:
    raise OddError(1, 2)


def raise_locked() -> NoReturn:
    raise LockedError


def leave() -> NoReturn:
    sys.exit(3)


def interrupt_itself() -> NoReturn:
    raise KeyboardInterrupt


def make_lock() -> threading.Lock:
    return threading.Lock()


def generate() -> Iterator[int]:
    yield 1


def complete(value: int) -> State[int]:
    return Completed(data=value)


def give_up() -> State[Any]:
    return Failed(message="no rows today")


def zeros(size: int) -> np.ndarray[Any, Any]:
    return np.zeros(size)


def increase(array: np.ndarray[Any, Any]) -> tuple[float, int]:
    array += 1
    return float(array.sum()), os.getpid()


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def sleep_and_swallow(seconds: float) -> str:
    try:
        time.sleep(seconds)
    except Exception:  # noqa: BLE001 - as users write it
        return "swallowed"
    return "slept"


def sleep_and_swallow_all(seconds: float) -> str:
    try:
        time.sleep(seconds)
    except BaseException:  # noqa: BLE001 - as users write it
        return "swallowed"
    return "slept"


def never_react() -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


async def doze(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def meet(barrier: str, number: int) -> int:
    """End only when as many as `number` are in here at once."""
    here = _meetings.setdefault(barrier, set())
    here.add(asyncio.current_task())
    while len(here) < number:  # noqa: ASYNC110 - an Event would belong to one loop
        await asyncio.sleep(0.001)
    return len(here)


_meetings: dict[str, set[Any]] = {}


def meet_in_threads(barrier: str, number: int) -> int:
    return _barriers.setdefault(barrier, threading.Barrier(number)).wait(30)


_barriers: dict[str, threading.Barrier] = {}


def talk(message: str) -> None:
    log.info("info %s", message)
    log.debug("debug %s", message)
    print("printed", message)  # noqa: T201 - it is what is tested


def talk_in_thread() -> None:
    thread = threading.Thread(target=log.warning, args=("from a thread",))
    thread.start()
    thread.join()


def talk_and_wait(path: str) -> None:
    """Log, then go on only when a file is there."""
    log.info("waiting")
    while not os.path.exists(path):  # noqa: PTH110 - a plain function of a user
        time.sleep(0.01)


def talk_and_die(lines: int) -> None:
    for number in range(lines):
        log.info("line %d", number)
    os.kill(os.getpid(), signal.SIGKILL)


def flood(lines: int) -> None:
    for number in range(lines):
        log.info("line %d", number)


def spin(seconds: float) -> None:
    """Compute, without a system call that a signal could interrupt."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def assigned_cpus() -> float:
    import ray

    context = ray.get_runtime_context()
    return float(context.get_assigned_resources()["CPU"])  # type: ignore[no-untyped-call]


def die(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


def die_and_wait(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)
    time.sleep(60)


def where() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def where_and_die(path: str) -> None:
    """Leave the node, the worker and the process, and die at once."""
    import ray

    context = ray.get_runtime_context()
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - a plain function of a user
        file.write(f"{context.get_node_id()} {context.get_worker_id()} {os.getpid()}")
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_or_never_react(seconds: float | None) -> None:
    if seconds is None:
        never_react()
    else:
        time.sleep(seconds)


def sleep_or_stop(seconds: float | None) -> None:
    if seconds is None:
        # What has ended before is reported meanwhile.
        time.sleep(0.3)
        stop()
    else:
        time.sleep(seconds)


def exit_at_once() -> NoReturn:
    os._exit(3)


def stop(path: str = "") -> None:
    """Be stopped, as a process under a debugger or on a frozen machine."""
    mark(path)
    os.kill(os.getpid(), signal.SIGSTOP)


def hold_gil(path: str = "") -> None:
    """Add for days in C, without giving up the GIL or looking for signals."""
    mark(path)
    sum(range(10**15))


def hold_gil_for_or_sleep(seconds: float, hold: bool) -> None:
    """Sleep, without giving up the GIL if so told."""
    library = ctypes.PyDLL(None) if hold else ctypes.CDLL(None)
    library.usleep(int(seconds * 1e6))


def mark(path: str) -> None:
    """Leave the process id, and the time that it has computed so far."""
    if path:
        with open(f"{path}.new", "w", encoding="utf-8") as file:  # noqa: PTH123 - of a user
            file.write(f"{os.getpid()} {os.times().user}")
        os.rename(f"{path}.new", path)  # noqa: PTH104 - of a user


def wait_for_file(path: str) -> None:
    """Go on only when a file is there."""
    while not os.path.exists(path):  # noqa: PTH110 - a plain function of a user
        time.sleep(0.01)


def die_at(path: str, index: int) -> int:
    """Be killed in the item 2, once the report of others can have left."""
    if index == 2:
        while not os.path.exists(path):  # noqa: PTH110 - a plain function of a user
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def who_am_i() -> tuple[str, str, int, int, tuple[str, ...], dict[str, Any]]:
    attempt = attempt_context.get()
    assert attempt is not None
    return (
        attempt.surroundings.flow_name,
        attempt.task_run_key,
        attempt.index,
        attempt.attempt,
        attempt.surroundings.tags,
        dict(attempt.load_arguments()),
    )


def set_alarm_and_forget() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)


class Parser:
    """Tasks may be methods."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def parse(self, value: int) -> int:
        return value + self.offset

    @staticmethod
    def double(value: int) -> int:
        return 2 * value
