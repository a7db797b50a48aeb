from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from raysched.worker.interrupt import (
    CancelRequested,
    DeadlinePassed,
    Interruption,
    SignalInterruption,
    Signals,
    ThreadInterruption,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def signals() -> Iterator[Signals]:
    found = Signals(dedicated=False)
    found.install()
    yield found
    found.uninstall()


@pytest.fixture(params=["signal", "thread"])
def new(request: pytest.FixtureRequest, signals: Signals) -> Callable[[], Interruption]:
    if request.param == "signal":
        return lambda: SignalInterruption(signals)
    return ThreadInterruption


def spin() -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass


def test_result_is_handed_on(new: Callable[[], Interruption]) -> None:
    assert new().run(lambda: 7, timeout=60) == 7


def test_deadline(new: Callable[[], Interruption]) -> None:
    with pytest.raises(DeadlinePassed):
        new().run(spin, timeout=0.05)


def test_interrupt_from_another_thread(new: Callable[[], Interruption]) -> None:
    interruption = new()
    running = threading.Event()

    def interrupt() -> None:
        running.wait()
        interruption.interrupt(CancelRequested)

    def user_code() -> None:
        running.set()
        spin()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(CancelRequested):
        interruption.run(user_code, timeout=None)
    thread.join()


def test_interrupt_before_the_start(new: Callable[[], Interruption]) -> None:
    interruption = new()
    interruption.interrupt(CancelRequested)
    with pytest.raises(CancelRequested):
        interruption.run(spin, timeout=None)


def test_shield_holds_it_back(new: Callable[[], Interruption]) -> None:
    interruption = new()
    steps = []

    def user_code() -> None:
        with interruption.shield():
            while interruption.reason is None:
                pass
            steps.append("shielded")
        steps.append("after")

    with pytest.raises(DeadlinePassed):
        interruption.run(user_code, timeout=0.05)
    assert steps == ["shielded"]


def test_is_raised_once(new: Callable[[], Interruption]) -> None:
    interruption = new()
    steps = []

    def user_code() -> None:
        try:
            spin()
        finally:
            interruption.interrupt(CancelRequested)
            with interruption.shield():
                steps.append("logged")
            time.sleep(0.15)
            steps.append("cleaned up")

    with pytest.raises(DeadlinePassed):
        interruption.run(user_code, timeout=0.05)
    assert steps == ["logged", "cleaned up"]


@pytest.mark.parametrize("by_deadline", [True, False])
def test_signal_that_came_too_early_for_a_system_call_comes_again(
    signals: Signals,
    by_deadline: bool,
) -> None:
    interruption = SignalInterruption(signals)

    def user_code() -> None:
        # What is lost here stands for one between Python's last look at signals and the call.
        handler = signal.signal(signal.SIGALRM, lambda *_: None)
        if not by_deadline:
            other = threading.Thread(target=interruption.interrupt, args=(CancelRequested,))
            other.start()
            other.join()
        time.sleep(0.1)
        signal.signal(signal.SIGALRM, handler)
        time.sleep(60)

    with pytest.raises(DeadlinePassed if by_deadline else CancelRequested):
        interruption.run(user_code, timeout=0.05 if by_deadline else None)


def test_inner_run_leaves_the_timer_of_the_outer_one(signals: Signals) -> None:
    def user_code() -> None:
        inner = Signals(dedicated=False)
        inner.install()
        try:
            SignalInterruption(inner).run(lambda: None, timeout=30)
        finally:
            inner.uninstall()
        spin()

    with pytest.raises(DeadlinePassed):
        SignalInterruption(signals).run(user_code, timeout=0.1)


def test_deadline_of_the_outer_run_reaches_into_the_inner_one(signals: Signals) -> None:
    def user_code() -> None:
        inner = Signals(dedicated=False)
        inner.install()
        try:
            SignalInterruption(inner).run(spin, timeout=30)
        finally:
            inner.uninstall()

    with pytest.raises(DeadlinePassed):
        SignalInterruption(signals).run(user_code, timeout=0.1)


def test_ctrl_c_outside_user_code_is_held_back() -> None:
    signals = Signals(dedicated=False)
    signals.install()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signals.uninstall()


def test_what_interrupts_no_system_call_is_heard_by_another_thread() -> None:
    """Ray cancels so, and a worker whose driver it cannot reach is told of it by nothing else."""
    signals = Signals(dedicated=True)
    signals.install()
    heard, tell = os.pipe()
    before = signal.set_wakeup_fd(-1)
    signals.report_to(tell)
    interruption, running = SignalInterruption(signals), threading.Event()
    signals.cancel_unit = lambda: interruption.interrupt(CancelRequested)

    def cancel() -> None:
        running.wait()
        _thread.interrupt_main()
        while interruption.reason is None:
            signals.heard(os.read(heard, 64))

    def user_code() -> None:
        running.set()
        time.sleep(600)

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises(CancelRequested):
            interruption.run(user_code, timeout=None)
        thread.join()
    finally:
        signal.set_wakeup_fd(before)
        signals.uninstall()
        os.close(heard)
        os.close(tell)
