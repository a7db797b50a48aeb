"""Cached results through the public face: what is a hit, what is a miss, and who makes what."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from policies import maker
from raysched import (
    DEFAULT,
    FILES,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
    InvalidOption,
    StateType,
    TaskFuture,
    allow_failure,
    flow,
    get_run,
    once_per_worker,
    task,
    unmapped,
)
from raysched.settings import settings
from raysched.testing import FakeClock, inline
from raysched.wiring import Configuration, configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CACHED, COMPLETED = StateType.CACHED, StateType.COMPLETED

SECONDS = 60
"""How long another process may take to come to a point (seconds)."""


@pytest.fixture(params=["inline", "ray"])
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Flows run on a backend, with a database of their own."""
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    before = configure(Configuration(request.param))
    yield request.param
    configure(before)
    settings.cache_clear()


@pytest.fixture
def here() -> Iterator[None]:
    """Flows run inline, with a database of their own."""
    with inline():
        yield


RAN: list[int] = []
"""Who has run in this process: captured by no task, so that it counts for no key."""


@pytest.fixture(autouse=True)
def nobody_has_run() -> None:
    """Begin with an empty list."""
    RAN.clear()


class Log:
    """Who has run, whatever the process.

    Args:
        path: A file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def taken(self) -> list[str]:
        """Return what was written since the last time."""
        try:
            lines = self.path.read_text().split()
        except FileNotFoundError:
            return []
        self.path.unlink()
        return lines


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Where task runs note that they ran."""
    return Log(tmp_path / "log")


def note(log: str, word: object) -> None:
    with Path(log).open("a") as file:
        file.write(f"{word}\n")


@task(cache_policy=INPUTS - "log")
def double(x: int, log: str) -> int:
    note(log, f"double{x}")
    return 2 * x


@task(cache_policy=INPUTS - "log")
def total(numbers: list[int], log: str) -> int:
    note(log, "total")
    return sum(numbers)


@task
def rounded(x: float) -> int:
    return round(x)


@task
def many(count: int) -> list[str]:
    return [f"word {number}" for number in range(count)]


@task(cache_policy=INPUTS - "log")
def longest(words: list[str], log: str) -> str:
    note(log, "longest")
    return max(words, key=len)


@flow
def pipeline(xs: list[float], log: str) -> int:
    whole = rounded.map(xs)
    return total.submit(double.map(whole, unmapped(log)), log).result()


@pytest.mark.usefixtures("backend")
class TestOnBothBackends:
    def test_a_second_run_runs_nothing(self, log: Log) -> None:
        assert pipeline([1.0, 2.0, 3.0], str(log.path)) == 12
        assert sorted(log.taken()) == ["double1", "double2", "double3", "total"]
        assert pipeline([1.0, 2.0, 3.0], str(log.path)) == 12
        assert log.taken() == []
        counts = get_run("last").counts
        assert counts == {COMPLETED: 3, CACHED: 4}

    def test_an_unchanged_result_stops_the_wave(self, log: Log) -> None:
        pipeline([1.0, 2.0], str(log.path))
        log.taken()
        assert pipeline([1.2, 1.9], str(log.path)) == 6
        assert log.taken() == []

    def test_a_changed_result_goes_on(self, log: Log) -> None:
        pipeline([1.0, 2.0], str(log.path))
        log.taken()
        assert pipeline([1.0, 3.0], str(log.path)) == 8
        assert sorted(log.taken()) == ["double3", "total"]

    def test_a_large_result_counts_by_its_content(self, log: Log) -> None:
        @flow
        def words(count: int) -> str:
            return longest.submit(many.submit(count), str(log.path)).result()

        for _ in range(2):
            assert words(10_000) == "word 1000"
        assert words(20_000) == "word 10000"
        assert log.taken() == ["longest", "longest"]

    def test_equal_calls_of_one_run_are_made_once(self, log: Log) -> None:
        @flow
        def equal() -> list[int]:
            return double.map([4] * 50, unmapped(str(log.path))).result()

        assert equal() == [8] * 50
        assert log.taken() == ["double4"]


def states(*futures: TaskFuture[Any]) -> list[StateType]:
    for future in futures:
        future.wait()
    return [future.state.type for future in futures]


def hits(policy: CachePolicy, *calls: tuple[Any, ...], **options: Any) -> list[bool]:
    """Return which of these calls, each in a run of its own, was a hit."""

    @task(cache_policy=policy, **options)
    def f(*args: Any) -> str:
        return "value"

    @flow
    def one(args: tuple[Any, ...]) -> bool:
        return states(f.submit(*args)) == [CACHED]

    return [one(args) for args in calls]


class Colour:
    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.usefixtures("here")
class TestPolicies:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (1, 1),
            ("a", "a"),
            ({"x", "yy", "zzz"}, {"zzz", "yy", "x"}),
            ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
            ([1, [2]], [1, [2]]),
            (Colour("red"), Colour("red")),
            (len, len),
        ],
        ids=repr,
    )
    def test_equal_inputs_are_a_hit(self, first: object, second: object) -> None:
        assert hits(INPUTS, (first,), (second,)) == [False, True]

    @pytest.mark.parametrize(
        ("first", "second"),
        [(1, 2), (1, 1.0), (1, True), ([1], (1,)), (Colour("red"), Colour("blue")), ("1", 1)],
        ids=repr,
    )
    def test_other_inputs_are_a_miss(self, first: object, second: object) -> None:
        assert hits(INPUTS, (first,), (second,)) == [False, False]

    def test_calls_maps_and_defaults_have_one_key(self) -> None:
        @task(cache_policy=INPUTS)
        def f(x: int, y: int = 2, **rest: int) -> int:
            return x + y

        @flow
        def all_ways() -> list[StateType]:
            first = f.submit(1)
            assert states(first) == [COMPLETED]
            return states(f.submit(x=1), f.submit(1, y=2), *f.map([1]), *f.map(x=[1], y=[2]))

        assert all_ways() == [CACHED] * 4

        @flow
        def with_more() -> list[StateType]:
            assert states(f.submit(1, z=3)) == [COMPLETED]
            return states(*f.map([1], z=3), *f.map([1], z=[3]))

        assert with_more() == [CACHED] * 2

    def test_results_of_tasks_and_values_have_one_key(self) -> None:
        @task
        def one() -> int:
            return 1

        @task(cache_policy=INPUTS)
        def f(x: int) -> int:
            return x

        @flow
        def both() -> list[StateType]:
            f.submit(1).wait()
            return states(f.submit(one.submit()))

        assert both() == [CACHED]

    def test_futures_inside_arguments_count_by_their_content(self) -> None:
        @task
        def give(x: int) -> int:
            return x

        @task(cache_policy=INPUTS)
        def f(data: dict[str, list[int]]) -> int:
            return sum(data["numbers"])

        @flow
        def run(x: int) -> StateType:
            return states(f.submit({"numbers": [1, give.submit(x)]}))[0]

        assert [run(2), run(2), run(3)] == [COMPLETED, CACHED, COMPLETED]

    def test_an_argument_that_is_left_out(self) -> None:
        @task(cache_policy=INPUTS - "loud")
        def f(x: int, loud: bool) -> int:
            return x

        @flow
        def run(x: int, *, loud: bool) -> StateType:
            return states(f.submit(x, loud))[0]

        runs = run(1, loud=True), run(1, loud=False), run(2, loud=False)
        assert runs == (COMPLETED, CACHED, COMPLETED)

    def test_two_tasks_never_share_a_result(self) -> None:
        def twice(x: int) -> int:
            return 2 * x

        def thrice(x: int) -> int:
            return 3 * x

        tasks = [task(cache_policy=INPUTS)(each) for each in (twice, thrice)]

        @flow
        def both() -> list[int]:
            return [each(5) for each in tasks]

        assert both() == both() == [10, 15]

    def test_run_id_and_default_share_within_a_run_only(self) -> None:
        def f(x: int) -> int:
            return x

        cached = task(cache_policy=DEFAULT)(f)
        kept = task(persist_result=True)(f)
        plain = task(f)

        @flow
        def twice(which: str) -> list[StateType]:
            used = {"cached": cached, "kept": kept, "plain": plain}[which]
            first = used.submit(1)
            first.wait()
            return states(first, used.submit(1))

        for which in ("cached", "kept"):
            assert [twice(which), twice(which)] == [[COMPLETED, CACHED]] * 2
        assert twice("plain") == [COMPLETED, COMPLETED]

    def test_a_flow_that_keeps_results_caches_them_as_in_prefect(self) -> None:
        @task
        def f(x: int) -> int:
            return x

        @task(cache_policy=NO_CACHE)
        def g(x: int) -> int:
            return x

        @flow(persist_result=True)
        def run() -> list[StateType]:
            f.submit(1).wait()
            g.submit(1).wait()
            return states(f.submit(1), g.submit(1))

        assert run() == [CACHED, COMPLETED]

    def test_flow_parameters(self) -> None:
        @task(cache_policy=FLOW_PARAMETERS)
        def f(x: int) -> int:
            return x

        @flow
        def run(day: str, x: int) -> int:
            return f(x)

        @flow
        def without() -> list[int]:
            return [f(1), f(2)]

        assert [run("mon", 1), run("mon", 1), run("tue", 2)] == [1, 1, 2]
        # As in Prefect, nothing to go by is no key.
        assert without() == [1, 2]

    def test_without_arguments_inputs_are_no_key(self) -> None:
        assert hits(INPUTS, (), ()) == [False, False]

        @task(cache_policy=INPUTS)
        def nothing() -> int:
            RAN.append(1)
            return len(RAN)

        @flow
        def run() -> list[int]:
            return [nothing(), nothing()]

        assert run() == [1, 2]
        assert "no arguments" in get_run("last").logs()[0].message

    def test_the_source_of_helpers_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @task(cache_policy=TASK_SOURCE)
        def f() -> int:
            return helper()

        @flow
        def run() -> int:
            return f()

        assert (run(), run()) == (1, 1)
        monkeypatch.setitem(globals(), "helper", lambda: 2)
        assert (run(), run()) == (2, 2)

    def test_no_cache(self) -> None:
        assert hits(NO_CACHE, (1,), (1,)) == [False, False]
        assert hits(NONE + INPUTS, (1,), (1,)) == [False, True]

    def test_the_algebra(self) -> None:
        assert repr(DEFAULT) == "INPUTS + TASK_SOURCE + RUN_ID"
        assert repr(INPUTS - "b" - "a" + FILES) == "INPUTS - 'a' - 'b' + FILES"
        assert INPUTS + RUN_ID == RUN_ID + INPUTS + NO_CACHE
        assert RUN_ID - "a" == RUN_ID
        assert INPUTS - "a" + FILES != (INPUTS + FILES) - "a"

    def test_an_object_of_the_worker_counts_by_how_it_is_made(self) -> None:
        @task(cache_policy=INPUTS)
        def f(model: Colour, x: int) -> str:
            return model.name

        @flow
        def run(name: str) -> list[StateType]:
            model = once_per_worker(Colour, name)
            return states(f.submit(model, 1), *f.map(unmapped(model), [1]))

        assert run("red") == [COMPLETED, CACHED]
        assert run("red") == [CACHED, CACHED]
        assert run("blue") == [COMPLETED, CACHED]


def helper() -> int:
    return 1


@pytest.mark.usefixtures("here")
class TestKeyFunctions:
    def test_are_given_the_task_run_and_live_parameters(self) -> None:
        seen: list[Any] = []

        def key(context: Any, parameters: dict[str, Any]) -> str:
            seen.append((context.task.name, context.task_run.key, dict(parameters)))
            assert context.parameters == parameters
            assert context.flow_parameters == {"x": 5}
            return f"of {sorted(parameters['numbers'])}"

        @task
        def give(x: int) -> int:
            return x

        @task(cache_key_fn=key)
        def f(numbers: list[int], more: int = 1) -> int:
            return sum(numbers) + more

        @flow
        def run(x: int) -> list[StateType]:
            first = f.submit([give.submit(x), 1])
            first.wait()
            return states(first, f.submit(give.map([1, x])))

        assert run(5) == [COMPLETED, CACHED]
        assert seen == [
            ("f", "f[0]", {"numbers": [5, 1], "more": 1}),
            ("f", "f[1]", {"numbers": [1, 5], "more": 1}),
        ]

    def test_none_means_no_caching_and_tasks_may_share(self) -> None:
        @task(cache_key_fn=lambda _, p: None if p["x"] < 0 else f"{p['x']}")
        def f(x: int) -> str:
            return "f"

        @task(cache_key_fn=lambda _, p: f"{p['x']}")
        def g(x: int) -> str:
            return "g"

        @flow
        def run() -> list[str]:
            assert states(f.submit(-1), f.submit(-1)) == [COMPLETED, COMPLETED]
            return [f(1), g(1), g(2)]

        assert run() == ["f", "f", "g"]

    def test_a_failing_one_fails_the_task_run(self) -> None:
        def broken(_: Any, parameters: dict[str, Any]) -> str:
            return str(parameters["y"])

        @task(cache_key_fn=broken)
        def f(x: int) -> int:
            RAN.append(x)
            return x

        @task(cache_key_fn=lambda _, p: p["x"])
        def g(x: int) -> int:
            RAN.append(x)
            return x

        @flow
        def run() -> None:
            with pytest.raises(KeyError, match="y"):
                f(1)
            with pytest.raises(TypeError, match="cache_key_fn of task 'g' returned int"):
                g(1)

        run()
        assert RAN == []


class TestLifetimes:
    def test_a_result_expires(self) -> None:
        clock = FakeClock()

        @task(cache_policy=INPUTS, cache_expiration=timedelta(hours=2))
        def f(x: int) -> int:
            return x

        @task(retries=1, retry_delay_seconds=3600)
        def an_hour_later(tries: list[int] = []) -> None:  # noqa: B006 - kept on purpose
            tries.append(1)
            if len(tries) % 2:
                raise OSError("not yet")

        @flow
        def run() -> list[StateType]:
            found = []
            for _ in range(3):
                found += states(f.submit(1))
                an_hour_later()
            return found

        with inline(clock):
            assert run() == [COMPLETED, CACHED, COMPLETED]
            notes = [row.message for row in get_run("last").logs()]
        assert any("cache miss: the result of f[0]" in text and "expired" in text for text in notes)

    @pytest.mark.usefixtures("here")
    def test_refresh_makes_it_anew(self) -> None:
        @task(cache_policy=INPUTS)
        def f(x: int) -> int:
            RAN.append(x)
            return len(RAN)

        fresh = f.with_options(refresh_cache=True)

        @flow
        def run() -> list[int]:
            return [f(1), fresh(1), f(1)]

        assert run() == [1, 2, 2]

    def test_the_setting_refreshes_what_does_not_say_otherwise(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
        monkeypatch.setenv("RAYSCHED_REFRESH_CACHE", "true")
        settings.cache_clear()
        before = configure(Configuration("inline"))

        @task(cache_policy=INPUTS)
        def f(x: int) -> int:
            return x

        @flow
        def run() -> list[StateType]:
            f.submit(1).wait()
            return states(f.submit(1), f.with_options(refresh_cache=False).submit(1))

        assert run() == [COMPLETED, CACHED]
        configure(before)
        settings.cache_clear()


@pytest.mark.usefixtures("here")
class TestFiles:
    def test_content_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "data.csv"
        path.write_text("a")
        assert hits(INPUTS + FILES, (path,), (path,)) == [False, True]

        @task(cache_policy=INPUTS + FILES)
        def size(paths: dict[str, list[Path]]) -> str:
            return "".join(each.read_text() for each in paths["all"])

        @flow
        def run() -> str:
            return size({"all": [path]})

        assert run() == run() == "a"
        path.write_text("b")
        assert run() == "b"

    def test_a_path_that_a_task_returns_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "made"

        @task
        def make(text: str) -> Path:
            path.write_text(text)
            return path

        @task(cache_policy=INPUTS + FILES)
        def read(file: Path) -> str:
            return file.read_text()

        @flow
        def run(text: str) -> str:
            return read.submit(make.submit(text)).result()

        @flow
        def run_map(text: str) -> list[str]:
            return read.map(make.map([text])).result()

        assert [run("1"), run("1"), run("2")] == ["1", "1", "2"]
        assert [run_map("3"), run_map("4")] == [["3"], ["4"]]

    def test_directories_count_by_all_that_is_in_them(self, tmp_path: Path) -> None:
        def state() -> bool:
            return hits(FILES, (tmp_path / "tree",))[0]

        @task(cache_policy=FILES)
        def f(tree: Path) -> int:
            return 1

        @flow
        def is_hit() -> bool:
            return states(f.submit(tmp_path / "tree")) == [CACHED]

        (tmp_path / "tree" / "sub").mkdir(parents=True)
        (tmp_path / "tree" / "sub" / "a").write_text("1")
        assert [is_hit(), is_hit()] == [False, True]
        (tmp_path / "tree" / "sub" / "a").write_text("2")
        assert [is_hit(), is_hit()] == [False, True]
        (tmp_path / "tree" / "sub" / "a").rename(tmp_path / "tree" / "b")
        assert [is_hit(), is_hit()] == [False, True]
        (tmp_path / "tree" / "link").symlink_to("b")
        assert [is_hit(), is_hit()] == [False, True]
        (tmp_path / "tree" / "link").unlink()
        assert is_hit()

    def test_what_is_missing_counts_as_missing(self, tmp_path: Path) -> None:
        @task(cache_policy=INPUTS + FILES - "out")
        def convert(source: Path, out: Path) -> None:
            out.write_text(source.read_text())

        @task(cache_policy=FILES)
        def size(path: Path) -> int:
            return path.stat().st_size if path.exists() else -1

        source, out = tmp_path / "in", tmp_path / "out"
        source.write_text("1")

        @flow
        def run() -> tuple[StateType, int]:
            done = states(convert.submit(source, out))
            return done[0], size(tmp_path / "later")

        assert run() == (COMPLETED, -1)
        (tmp_path / "later").write_text("xx")
        # It has come to be there, but does not count.
        assert run() == (CACHED, 2)

    def test_the_path_itself_need_not_count(self, tmp_path: Path) -> None:
        @task(cache_policy=INPUTS - "path" + FILES)
        def read(path: Path) -> str:
            return path.read_text()

        @flow
        def is_hit(name: str) -> bool:
            (tmp_path / name).write_text("same")
            return states(read.submit(tmp_path / name)) == [CACHED]

        assert [is_hit("a"), is_hit("b")] == [False, True]


@pytest.mark.usefixtures("here")
class TestWhatHasNoKey:
    def test_runs_uncached_and_says_so(self) -> None:
        @task(persist_result=False)
        def not_kept() -> bytes:
            return b"x" * 100_000

        @task(cache_policy=INPUTS)
        def f(data: bytes) -> int:
            RAN.append(1)
            return len(data)

        @flow
        def run() -> int:
            return f.submit(not_kept.submit()).result()

        assert run() == run() == 100_000
        assert len(RAN) == 2
        (told,) = [row for row in get_run("last").logs() if "not cached" in row.message]
        assert told.message == "not cached: the result of not_kept[0], which it needs, is not kept"
        assert told.key == "f[0]"

    def test_a_failure_that_is_handed_over_is_no_content(self) -> None:
        @task
        def broken() -> int:
            raise ValueError("no")

        @task(cache_policy=INPUTS)
        def f(x: object) -> str:
            return type(x).__name__

        @flow
        def run() -> StateType:
            return states(f.submit(allow_failure(broken.submit())))[0]

        assert [run(), run()] == [COMPLETED, COMPLETED]

    def test_failures_are_not_cached(self) -> None:
        @task(cache_policy=INPUTS)
        def f(x: int) -> int:
            RAN.append(x)
            if len(RAN) == 1:
                raise ValueError("no")
            return x

        @flow
        def run() -> int:
            with pytest.raises(ValueError, match="no"):
                f(1)
            return f(1)

        assert run() == 1

    def test_those_who_wait_for_one_that_fails_try_themselves(self) -> None:
        @task(cache_policy=INPUTS)
        def f(x: int) -> int:
            RAN.append(x)
            if len(RAN) < 3:
                raise ValueError("no")
            return x

        @flow
        def run() -> list[StateType]:
            return states(*f.map([7] * 5))

        assert sorted(run()) == sorted(
            [StateType.FAILED, StateType.FAILED, COMPLETED, CACHED, CACHED]
        )
        assert len(RAN) == 3


class TestDeclarations:
    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"cache_policy": "INPUTS"}, "must be a policy"),
            ({"cache_policy": INPUTS - "pth"}, r"'pth' is no parameter \(did you mean 'path'\?\)"),
            ({"cache_policy": INPUTS, "persist_result": False}, "leave out persist_result=False"),
            (
                {"cache_key_fn": lambda _, __: "", "persist_result": False},
                "a result that is not kept cannot be cached",
            ),
            ({"cache_policy": INPUTS, "setup": True}, "a setup task"),
            ({"cache_policy": INPUTS, "teardown": True}, "a teardown task"),
            ({"cache_key_fn": lambda: ""}, r"is called as \(context, parameters\)"),
            ({"cache_key_fn": "key"}, "must be a function"),
            ({"cache_expiration": 3600}, "must be a timedelta"),
            ({"cache_expiration": timedelta()}, "must be a timedelta, more than 0"),
            ({"refresh_cache": "yes"}, "must be True or False"),
        ],
    )
    def test_what_cannot_be_is_refused(self, options: dict[str, Any], problem: str) -> None:
        def parse(path: str) -> str:
            return path

        with pytest.raises(InvalidOption, match=problem):
            task(**options)(parse)

    @pytest.mark.parametrize("argument", ["two words", "", 3, ["a"]])
    def test_what_is_no_argument_is_refused(self, argument: Any) -> None:
        with pytest.raises(InvalidOption, match="subtract the name of one argument"):
            INPUTS - argument

    def test_a_key_function_comes_before_a_policy(self, caplog: pytest.LogCaptureFixture) -> None:
        @task(cache_policy=INPUTS, cache_key_fn=lambda _, __: "k")
        def f(x: int) -> int:
            return x

        assert f.spec.cache is not None
        assert not f.spec.cache.parts
        assert "cache_key_fn is used" in caplog.text


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return what starts a process that needs one result, in a database of its own."""
    home = str(tmp_path / "home")
    monkeypatch.setenv("RAYSCHED_HOME", home)
    settings.cache_clear()
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, maker.__file__, str(tmp_path)],
            env=os.environ | {"RAYSCHED_HOME": home, "RAYSCHED_BACKEND": "inline"},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    settings.cache_clear()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


@pytest.mark.usefixtures("here")
def test_the_example_of_the_page(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "caching.md"
    (example,) = re.findall(r"```python\n(.+?)```", page.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": __name__}
    exec(example, names)  # noqa: S102 - it is the page's own
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text("some words to count")

    def counts() -> dict[StateType, int]:
        assert names["count"](tmp_path) == 8
        return dict(get_run("last").counts)

    assert [counts(), counts()] == [{COMPLETED: 3}, {CACHED: 3}]
    (tmp_path / "two.txt").write_text("other words to count")
    assert counts() == {COMPLETED: 2, CACHED: 1}


class TestTwoProcesses:
    def _first_and_second(
        self, tmp_path: Path, start: Callable[[], subprocess.Popen[str]]
    ) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
        first = start()
        until((tmp_path / "began").exists)
        maker_id = get_run("last").id
        second = start()
        until(lambda: get_run("last").id != maker_id and _reasons() != [])
        assert _reasons() == [f"its result is being made by {maker_id[:8]}/make[0]"]
        return first, second

    def test_make_what_both_need_once(
        self, tmp_path: Path, start: Callable[[], subprocess.Popen[str]]
    ) -> None:
        processes = self._first_and_second(tmp_path, start)
        (tmp_path / "go").touch()
        assert [each.communicate()[0] for each in processes] == ["made", "made"]
        assert (tmp_path / "began").read_text() == "x\n"

    def test_the_second_takes_over_from_one_that_was_killed(
        self, tmp_path: Path, start: Callable[[], subprocess.Popen[str]]
    ) -> None:
        first, second = self._first_and_second(tmp_path, start)
        first.kill()
        first.wait()
        (tmp_path / "go").touch()
        assert second.communicate()[0] == "made"
        assert (tmp_path / "began").read_text() == "x\nx\n"


def _reasons() -> list[str]:
    return [each.state.message for each in get_run("last").task_runs() if each.state.message]
