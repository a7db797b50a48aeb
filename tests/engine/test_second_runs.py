"""`idempotent=False`: what may have run already is not run again without a yes."""

from contextlib import suppress

import pytest

from engine.going_on import Shown, broken, executed, fails, ran, run, shown
from raysched import flow, get_run, task
from raysched.errors import NotResumable
from raysched.model.states import StateType

FAILED = StateType.FAILED

pytestmark = pytest.mark.usefixtures("committed", "nothing_ran")


@task
def load(n: int) -> int:
    run("load", n)
    return n


@task(idempotent=False)
def send() -> None:
    run("send")


@task(idempotent=False)
def look() -> int:
    return get_run("last").task_run("look[0]").attempts


class TestWhatMustNotRunTwice:
    def test_is_kept_as_begun_before_it_begins(self) -> None:
        @flow
        def around() -> int:
            return look()

        assert around() == 1

    def test_is_asked_for(self) -> None:
        @flow
        def around() -> None:
            send()

        broken.add("send")
        fails(around)
        executed()
        broken.clear()
        with pytest.raises(NotResumable, match=r"send\[0\]"):
            around.resume()
        assert not ran
        around.resume(confirmed=True)
        assert executed() == {"send": 1}

    def test_does_not_either_when_the_flow_function_calls_it_once_more(self) -> None:
        @flow
        def around() -> None:
            for _ in range(2):
                with suppress(NotResumable):
                    send()

        broken.add("send")
        fails(around)
        executed()
        broken.clear()
        around.resume()
        assert not ran
        assert shown() == {"send[0]": Shown(FAILED, 1)}

    def test_does_not_either_when_the_flow_function_has_retries(self) -> None:
        @flow
        def inner() -> None:
            send()

        @flow(retries=2)
        def around() -> None:
            inner()

        broken.add("send")
        fails(around)
        executed()
        broken.clear()
        with pytest.raises(NotResumable, match="may have run already"):
            around.resume()
        assert not ran

    def test_is_reused_when_it_completed(self) -> None:
        @flow
        def around() -> None:
            send()
            load(1)

        broken.add(("load", 1))
        fails(around)
        executed()
        broken.clear()
        around.resume()
        assert executed() == {"load 1": 1}
