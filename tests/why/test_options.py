"""What a task was declared with is kept, as far as the advice depends on it."""

import json

from raysched import escalate, flow, task
from raysched.settings import settings
from raysched.store import open_reader
from why.around import run


@task(retries=1, retry_on=ConnectionError, owner="me@shop.example")
def strict() -> None:
    raise KeyError("x")


@task(memory="1GiB", on_oom=escalate(up_to="8GiB"), max_failures=3, fallback=1)
def careful(number: int) -> int:
    return number


@flow
def declared() -> None:
    _ = strict.submit()
    _ = careful.map([1, 2])


def test_options_that_advice_looks_at() -> None:
    run(declared)
    reader = open_reader(settings().resolved_database_url())
    groups = reader.groups(reader.find_run("last"))
    reader.close()
    options = {group.task: json.loads(group.options) for group in groups}
    assert options["strict"]["retry_on"] == ["ConnectionError"]
    assert options["careful"]["on_oom"]["up_to"] == 8 * 1024**3
    assert options["careful"]["max_failures"] == 3
    assert options["careful"]["fallback"] is True


def test_of_what_was_not_tried_again_there_is_no_advice_to_try_it_less() -> None:
    (cause,) = run(declared).why().causes
    assert (cause.attempts_begun, cause.owner, cause.advice) == (1, "me@shop.example", ())
