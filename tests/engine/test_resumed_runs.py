"""A run that failed is mended and goes on: what runs again, and what does not."""

from collections import Counter
from typing import Any

import pytest

from engine.going_on import Shown, broken, executed, fails, run, said, shown
from raysched import allow_failure, flow, get_run, task
from raysched.model.states import StateType

COMPLETED, FAILED, SKIPPED = StateType.COMPLETED, StateType.FAILED, StateType.SKIPPED

pytestmark = pytest.mark.usefixtures("committed", "nothing_ran")


@task
def load(n: int) -> int:
    run("load", n)
    return n


@task
def parse(n: int) -> int:
    run("parse", n)
    return 10 * n


@task
def total(numbers: list[int]) -> int:
    run("total")
    return sum(numbers)


@task(setup=True)
def prepare() -> int:
    run("prepare")
    return seen.pop() if seen else 0


@task(retries=2)
def flaky() -> None:
    run("flaky")


@task
def tell(value: Any) -> str:
    run("tell", type(value).__name__)
    return type(value).__name__


@task(trigger_rule="one_failed")
def alarm() -> None:
    run("alarm")


@task
def free(value: str) -> None:
    run("free", value)


@task(compensate=free)
def book() -> str:
    run("book")
    return "seat"


seen: list[int] = []
"""What `prepare` returns, the last one first."""


@flow
def trip() -> str:
    seat = book()
    load(1)
    parse(1)
    return seat


@flow
def nightly(n: int = 4) -> int:
    return total.submit(parse.map(load.map(range(n)))).result()


class TestAMendedFailure:
    def test_only_what_had_not_completed_runs(self) -> None:
        broken.add(("parse", 2))
        fails(nightly)
        executed()
        broken.clear()
        assert nightly.resume() == 60
        assert executed() == Counter({"parse 2": 1, "total": 1})

    def test_goes_on_under_its_key_and_counts_on(self) -> None:
        broken.add(("parse", 2))
        fails(nightly)
        number = get_run("last").id
        for _ in range(3):
            fails(nightly.resume)
        broken.clear()
        nightly.resume()
        assert get_run("last").id == number
        others = {
            f"{name}[{n}]": Shown(COMPLETED, 1) for name in ("load", "parse") for n in range(4)
        }
        assert shown() == others | {
            "parse[2]": Shown(COMPLETED, 5),
            "total[0]": Shown(COMPLETED, 1),
        }
        assert [each.attempt for each in get_run("last").task_run("parse[2]").history] == [
            1,
            2,
            3,
            4,
            5,
        ]

    def test_tells_nothing_of_what_kept_it_from_running_before(self) -> None:
        broken.add(("parse", 2))
        fails(nightly)
        assert get_run("last").task_run("total[0]").roots
        broken.clear()
        nightly.resume()
        view = get_run("last").task_run("total[0]")
        assert (view.state.type, view.roots, view.error) == (COMPLETED, (), None)
        assert get_run("last").task_run("parse[2]").error is None

    def test_has_all_of_its_retries_again(self) -> None:
        @flow
        def around() -> None:
            flaky()

        broken.add("flaky")
        fails(around)
        assert executed() == {"flaky": 3}
        fails(around.resume)
        assert executed() == {"flaky": 3}
        assert shown() == {"flaky[0]": Shown(FAILED, 6)}

    def test_of_two_thousand_columns_half_done(self) -> None:
        @flow
        def wide() -> int:
            return total.submit(parse.map(load.map(range(2000)))).result()

        broken.update(("parse", n) for n in range(1000, 2000))
        fails(wide)
        executed()
        done = {key for key, view in shown().items() if view.state is COMPLETED}
        broken.clear()
        assert wide.resume() == 10 * sum(range(2000))
        again = executed()
        assert set(again.values()) == {1}
        assert len(again) == 4001 - len(done)
        assert {view.state for view in shown().values()} == {COMPLETED}


class TestSetups:
    def test_run_again_and_what_they_set_up_for_does_not(self) -> None:
        @flow
        def around() -> list[int]:
            ready = prepare.submit()
            first = load.submit(1, wait_for=[ready])
            return [first.result(), parse.submit(2, wait_for=[ready]).result()]

        broken.add(("parse", 2))
        fails(around)
        executed()
        broken.clear()
        assert around.resume() == [1, 20]
        assert executed() == {"prepare": 1, "parse 2": 1}
        assert shown()["prepare[0]"] == Shown(COMPLETED, 2)

    def test_and_their_value_is_the_new_one(self) -> None:
        seen[:] = [2, 1]

        @flow
        def around() -> int:
            ready = prepare.submit()
            parse(7)
            return load.submit(ready).result()

        broken.add(("parse", 7))
        fails(around)
        broken.clear()
        assert around.resume() == 2
        assert get_run("last").task_run("prepare[0]").result() == 2


class TestWhatConsumedAFailure:
    def test_runs_again_when_that_is_mended(self) -> None:
        @flow
        def around() -> str:
            told = tell.submit(allow_failure(load.submit(1)))
            told.wait()
            parse(2)
            return told.result()

        broken.update({("load", 1), ("parse", 2)})
        fails(around)
        assert executed() == {"load 1": 1, "tell ValueError": 1, "parse 2": 1}
        broken.clear()
        assert around.resume() == "int"
        assert executed() == {"load 1": 1, "tell int": 1, "parse 2": 1}
        assert shown()["tell[0]"] == Shown(COMPLETED, 2)

    def test_by_its_trigger_rule_is_skipped_when_that_is_mended(self) -> None:
        @flow
        def around() -> None:
            loaded = load.submit(1)
            alarm.submit(wait_for=[loaded]).wait()
            parse(2)

        broken.update({("load", 1), ("parse", 2)})
        fails(around)
        executed()
        broken.clear()
        around.resume(return_state=True)
        assert executed() == {"load 1": 1, "parse 2": 1}
        assert shown()["alarm[0]"].state is SKIPPED

    def test_a_handled_failure_that_is_none_any_more_is_not_told(self) -> None:
        @flow
        def around() -> None:
            load.submit(1).result(raise_on_failure=False)
            parse(2)

        broken.update({("load", 1), ("parse", 2)})
        fails(around)
        broken.clear()
        around.resume()
        assert get_run("last").state.message in {"", None}

    def test_a_failure_that_was_handled_counts_again(self) -> None:
        asked = [True]

        @flow
        def around() -> None:
            future = load.submit(1)
            future.wait()
            if asked:
                future.result(raise_on_failure=False)
            parse(2)

        broken.update({("load", 1), ("parse", 2)})
        fails(around)
        asked.clear()
        broken.remove(("parse", 2))
        fails(around.resume)
        assert get_run("last").state.type is FAILED
        assert not get_run("last").task_run("load[0]").handled


class TestRolledBackWork:
    def test_is_never_reused_and_is_done_again_once(self) -> None:
        broken.add(("load", 1))
        fails(trip)
        assert executed() == {"book": 1, "load 1": 1, "free seat": 1}
        broken.clear()
        broken.add(("parse", 1))
        fails(trip.resume)
        assert executed() == {"book": 1, "load 1": 1, "parse 1": 1, "free seat": 1}
        broken.clear()
        assert trip.resume() == "seat"
        assert executed() == {"book": 1, "parse 1": 1}
        assert not get_run("last").task_run("book[0]").rolled_back
        assert not [text for text in said() if "another way" in text], said()

    def test_is_no_longer_marked_when_it_has_been_done_again(self) -> None:
        broken.add(("load", 1))
        fails(trip)
        broken.clear()
        trip.resume()
        assert not get_run("last").task_run("book[0]").rolled_back
        executed()
        trip.rerun(again=["load"])
        assert executed() == {"load 1": 1}


class TestRetriesOfTheFlow:
    def test_in_a_run_that_goes_on_run_nothing_twice(self) -> None:
        @flow(retries=1)
        def around() -> int:
            first = load(1)
            second = parse.map([1, 2, 3]).result()
            run("flow")
            return first + sum(second)

        broken.update({("parse", 2), "flow"})
        fails(around)
        assert executed() == {"load 1": 1, "parse 1": 1, "parse 2": 2, "parse 3": 1}
        broken.remove(("parse", 2))
        fails(around.resume)
        assert executed() == {"parse 2": 1, "flow": 2}
        broken.clear()
        assert around.resume() == 61
        assert executed() == {"flow": 1}
        assert shown()["parse[1]"].state in {COMPLETED, FAILED}
        assert get_run("last").state.type is COMPLETED

    def test_what_the_second_attempt_completed_answers(self) -> None:
        @flow(retries=1)
        def around() -> list[int]:
            numbers = parse.map([1, 2, 3]).result()
            load(len(numbers))
            return numbers

        broken.update({("parse", 2), ("load", 3)})
        real = around

        @flow(retries=1)
        def mending() -> list[int]:
            try:
                return real.fn()
            finally:
                broken.discard(("parse", 2))

        fails(mending)
        assert executed()["parse 2"] == 2
        broken.clear()
        assert mending.resume() == [10, 20, 30]
        assert executed() == {"load 3": 1}


def test_enough_of_a_map_that_has_grown_is_enough_of_all_of_it() -> None:
    size = [5]

    @flow
    def partial() -> int:
        numbers = load.map(range(size[0]), min_success=0.6)
        return total.submit(numbers).result()

    broken.update(("load", n) for n in range(5))
    fails(partial)
    broken.difference_update({("load", 0)})
    broken.update(("load", n) for n in range(6, 10))
    size[0] = 10
    fails(partial.resume)
    assert [n for n in range(10) if shown()[f"load[{n}]"].state is COMPLETED] == [0, 5]
