"""Turns: in order, one at a time, with timers, and with everybody woken who has to be."""

import asyncio
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from raysched.engine.loop import Loop
from raysched.errors import InternalError
from raysched.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600 * 10**9


class Work:
    """What a pumped backend has to do."""

    def __init__(self) -> None:
        self.units: list[Callable[[], None]] = []
        self.settled = 0
        self.clock = FakeClock()

    def pump(self) -> bool:
        if not self.units:
            return False
        self.units.pop(0)()
        return True

    def settle(self) -> None:
        self.settled += 1

    def loop(self) -> Loop:
        return Loop(self.clock, self.settle, lambda: False, self.pump, never_attend, print)


@pytest.fixture
def work() -> Work:
    return Work()


def never_attend(seconds: float | None) -> None:
    """Wait for nothing."""


def fail() -> None:
    raise IndexError


class TestTurns:
    def test_call_what_was_posted_in_order_and_settle_at_the_end(self, work: Work) -> None:
        loop = work.loop()
        seen: list[tuple[int, int]] = []
        for number in range(3):
            loop.post(lambda number: seen.append((number, work.settled)), number)
        loop.turn()
        assert seen == [(0, 0), (1, 0), (2, 0)]
        assert work.settled == 1

    def test_take_in_what_is_posted_meanwhile(self, work: Work) -> None:
        loop = work.loop()
        seen: list[str] = []
        loop.post(lambda: loop.post(seen.append, "later"))
        loop.turn()
        assert seen == ["later"]
        assert work.settled == 1

    def test_end_with_an_error_that_all_get_who_wait(self, work: Work) -> None:
        loop = work.loop()
        loop.post(fail)
        with pytest.raises(InternalError, match="IndexError") as told:
            loop.wait(lambda: False, None)
        assert isinstance(told.value.__cause__, IndexError)
        with pytest.raises(InternalError):
            asyncio.run(loop.wait_async(lambda: False, None))
        seen: list[int] = []
        loop.post(seen.append, 1)
        loop.turn()
        assert seen == []

    def test_still_tell_of_what_was_done_before_the_error(self, work: Work) -> None:
        loop = work.loop()
        loop.post(fail)
        assert loop.wait(lambda: True, None)

    def test_are_no_more_after_the_stop(self, work: Work) -> None:
        loop = work.loop()
        loop.stop()
        loop.turn()
        assert work.settled == 0


class TestTimers:
    def test_come_in_order_of_time(self, work: Work) -> None:
        loop = work.loop()
        now = work.clock.now()
        seen: list[int] = []

        def begin() -> None:
            for hours in (3, 1, 2):
                loop.at(now + hours * HOUR, seen.append, hours)

        loop.post(begin)
        assert loop.wait(lambda: len(seen) == 3, None)
        assert seen == [1, 2, 3]

    def test_do_not_come_before_their_time(self, work: Work) -> None:
        loop = work.loop()
        seen: list[int] = []
        loop.post(loop.at, work.clock.now() + HOUR, seen.append, 1)
        loop.turn()
        loop.turn()
        assert seen == []
        assert work.clock.skipped == 0

    def test_wait_until_there_is_nothing_else_to_do(self, work: Work) -> None:
        loop = work.loop()
        seen: list[str] = []
        work.units += [lambda: seen.append("unit"), lambda: loop.post(seen.append, "posted")]
        loop.post(loop.at, work.clock.now() + HOUR, seen.append, "timer")
        assert loop.wait(lambda: len(seen) == 3, None)
        assert seen == ["unit", "posted", "timer"]


class TestWaiting:
    def test_ends_with_the_timeout(self, work: Work) -> None:
        loop = work.loop()
        assert not loop.wait(lambda: False, 0)
        assert not asyncio.run(loop.wait_async(lambda: False, 0))

    def test_looks_before_it_ends_with_the_timeout(self, work: Work) -> None:
        loop = work.loop()
        seen: list[int] = []
        loop.post(seen.append, 1)
        assert loop.wait(lambda: bool(seen), 0)

    def test_wakes_for_what_other_threads_post(self, work: Work) -> None:
        """The waiting thread looks first, so the other one posts while it sleeps or just before."""
        loop = work.loop()
        seen: list[int] = []
        looked = threading.Event()

        def done() -> bool:
            looked.set()
            return bool(seen)

        def other() -> None:
            looked.wait()
            loop.post(seen.append, 1)

        thread = threading.Thread(target=other)
        thread.start()
        assert loop.wait(done, 60)
        thread.join()

    def test_wakes_coroutines_for_what_other_threads_post(self, work: Work) -> None:
        loop = work.loop()
        seen: list[int] = []

        async def main() -> bool:
            waiting = asyncio.ensure_future(loop.wait_async(lambda: bool(seen), 60))
            # The waiting one has looked, and sleeps.
            await asyncio.sleep(0)
            await asyncio.to_thread(loop.post, seen.append, 1)
            return await waiting

        assert asyncio.run(main())

    @pytest.mark.parametrize("pumped", [True, False])
    def test_works_from_many_threads_at_once(self, work: Work, *, pumped: bool) -> None:
        pump = work.pump if pumped else None
        loop = Loop(work.clock, work.settle, lambda: False, pump, never_attend, print)
        done = [False] * 8
        woken: list[int] = []

        def wait_for(number: int) -> None:
            if loop.wait(lambda: done[number], 60):
                woken.append(number)
                # Each lets the next one go on.
                loop.post(end, number + 1)

        def end(number: int) -> None:
            if number < len(done):
                done[number] = True
                loop.made_visible()

        threads = [threading.Thread(target=wait_for, args=(n,)) for n in range(len(done))]
        for thread in threads:
            thread.start()
        loop.post(end, 0)
        for thread in threads:
            thread.join()
        loop.stop()
        assert woken == list(range(len(done)))

    def test_goes_on_while_nobody_waits(self, work: Work) -> None:
        loop = Loop(work.clock, work.settle, lambda: False, None, never_attend, print)
        came = threading.Event()
        loop.post(came.set)
        assert came.wait(60)
        loop.stop()


class Probed:
    """A lock that somebody holds a little longer who only looks whether it is free.

    Args:
        lock: The lock.
    """

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.refused = threading.Event()
        self.by = 0
        self.before_release: Callable[[], object] = int

    def acquire(self, *, blocking: bool) -> bool:
        got: bool = self._lock.acquire(blocking=blocking)
        if not got and threading.current_thread().name == "raysched-engine":
            self.refused.set()
        return got

    def release(self) -> None:
        if threading.get_ident() == self.by:
            self.before_release()
        self._lock.release()


def test_message_is_taken_that_comes_while_a_follower_looks_whether_somebody_leads(
    work: Work,
) -> None:
    loop = Loop(work.clock, work.settle, lambda: False, None, never_attend, print)
    lead = vars(loop)["_lead"] = Probed(vars(loop)["_lead"])
    led, leads, follows, over, taken = (threading.Event() for _ in range(5))

    def leading() -> bool:
        leads.set()
        return led.is_set()

    def following() -> bool:
        follows.set()
        return over.is_set()

    def follow() -> None:
        lead.by = threading.get_ident()
        loop.wait(following, 60)

    def meanwhile() -> None:
        lead.by = 0
        lead.refused.clear()
        over.set()
        loop.post(taken.set)
        lead.refused.wait(10)

    threads = [threading.Thread(target=loop.wait, args=(leading, 60))]
    threads[0].start()
    leads.wait()
    threads.append(threading.Thread(target=follow))
    threads[1].start()
    follows.wait()
    lead.before_release = meanwhile
    led.set()
    loop.post(loop.made_visible)
    for thread in threads:
        thread.join()
    assert taken.wait(10)
    loop.stop()


def test_ctrl_c_at_the_end_of_waiting_leaves_the_lead_to_others(work: Work) -> None:
    loop = work.loop()
    seen: list[int] = []

    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "_resign":
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    before = sys.getprofile()
    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.wait(lambda: True, None)
    finally:
        sys.setprofile(before)
    loop.post(seen.append, 1)
    assert loop.wait(lambda: bool(seen), 1)
