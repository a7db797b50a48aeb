"""The rows on caching in the table of docs/prefect.md."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from face.around import in_flow
from raysched import FILES, INPUTS, InvalidOption, StateType, get_run, task
from raysched.define.sources import source_digest


@task(cache_policy=INPUTS)
def one(x: object) -> int:
    return 1


@task(cache_policy=INPUTS)
def two(x: object) -> int:
    return 2


def cache_scope() -> None:
    assert in_flow(lambda: [one("scope"), two("scope")]) == [1, 2]
    named = [each.with_options(cache_key_fn=lambda *_: "scope") for each in (one, two)]
    assert in_flow(lambda: [each("scope") for each in named]) == [1, 1]


def cache_source() -> None:
    assert source_digest(one.with_options(retries=3).fn) == source_digest(one.fn)
    assert source_digest(one.fn) != source_digest(two.fn)


def cache_files() -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, "x")

        def is_hit() -> bool:
            future = one.with_options(cache_policy=INPUTS + FILES).submit(path)
            future.wait()
            return future.state.type is StateType.CACHED

        found = []
        for text in ("a", "a", "b"):
            path.write_text(text)
            found.append(in_flow(is_hit))
    assert found == [False, True, False]


def cache_once() -> None:
    def body() -> list[StateType]:
        futures = one.map(["once"] * 3)
        futures.wait()
        return sorted(future.state.type for future in futures)

    assert in_flow(body) == [StateType.COMPLETED, StateType.CACHED, StateType.CACHED]


def cache_error() -> None:
    failing = one.with_options(cache_key_fn=lambda _, parameters: parameters["y"])
    with pytest.raises(KeyError, match="y"):
        in_flow(failing, 1)


def cache_refused() -> None:
    with pytest.raises(InvalidOption, match="cannot be cached"):
        one.with_options(persist_result=False)
    with pytest.raises(InvalidOption, match="'y' is no parameter"):
        one.with_options(cache_policy=INPUTS - "y")


def cache_nested() -> None:
    @task
    def outer() -> list[bool]:
        futures = [one.submit("nested") for _ in range(2)]
        return [future.state.is_completed() for future in futures if future.result()]

    in_flow(outer)
    counts = get_run("last").counts
    assert StateType.CACHED not in counts


CHECKS = {
    "cache-scope": cache_scope,
    "cache-source": cache_source,
    "cache-files": cache_files,
    "cache-once": cache_once,
    "cache-error": cache_error,
    "cache-refused": cache_refused,
    "cache-nested": cache_nested,
}
"""By the anchors of the rows."""
