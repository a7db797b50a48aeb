"""What states tell of why something failed."""

import pytest

from raysched import StateType, UpstreamFailed, flow, task


@task
def load() -> int:
    raise KeyError("usage")


@task
def double(number: int) -> int:
    return 2 * number


class TestCause:
    def test_of_a_failure_is_its_exception(self) -> None:
        @flow
        def around() -> str:
            return repr(load(return_state=True).cause)

        assert around() == "KeyError('usage')"

    def test_of_one_that_only_followed_leads_to_its_root(self) -> None:
        @flow
        def around() -> tuple[type[BaseException], str]:
            future = double.submit(load.submit())
            future.wait()
            cause = future.state.cause
            assert cause is not None
            return type(cause), repr(cause.__cause__)

        assert around() == (UpstreamFailed, "KeyError('usage')")

    def test_of_a_success_is_none(self) -> None:
        @flow
        def around() -> bool:
            return double(1, return_state=True).cause is None

        assert around()


@pytest.mark.parametrize("state", StateType)
def test_types_are_told_by_their_names(state: StateType) -> None:
    assert str(state) == f"{state}" == state.name
