"""docs/failures.md says what really happens."""

from engine.handled_failures import PAGE, rows, written
from raysched import StateType


def test_the_page_is_up_to_date() -> None:
    """If it is not: `PYTHONPATH=tests python tests/engine/handled_failures.py` writes it."""
    assert PAGE.read_text("utf-8") == written()


def test_it_does_not_matter_how_a_task_run_failed() -> None:
    assert all(len(own_ends) == 1 for own_ends, _ in rows().values())


def test_every_flow_ends_in_one_of_two_ways() -> None:
    ends = {end for own_ends, follower_end in rows().values() for end in (*own_ends, follower_end)}
    assert ends == {StateType.COMPLETED, StateType.FAILED}
