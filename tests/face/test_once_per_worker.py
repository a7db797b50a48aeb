"""Objects that each worker makes once and closes at its end."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from face.costly import Closed, Entered, Model, broken, managed, yielded
from raysched import (
    Flow,
    FutureError,
    ParameterError,
    SerializationError,
    allow_failure,
    flow,
    get_run,
    get_run_logger,
    once_per_worker,
    task,
    unmapped,
    wiring,
)

MANY = 50


@task
def use(number: int, model: Any) -> tuple[int, int, int]:
    """Return the number, the process and which use of the model this is."""
    return number, os.getpid(), model.use()


@task
def show(model: Any) -> str:
    """Return what it looks like."""
    return str(getattr(model, "name", model))


@task
async def use_async(number: int, model: Any) -> tuple[int, int, int]:
    """As `use`, overlapping with others."""
    await asyncio.sleep(0.001)
    return number, os.getpid(), use.fn(number, model)[2]


@pytest.fixture
def story(tmp_path: Path) -> Callable[[], list[str]]:
    """Return what was told, without the processes."""

    def read() -> list[str]:
        lines = (tmp_path / "story").read_text().splitlines()
        return [line.rsplit(" ", 1)[0].strip() for line in lines]

    return read


def per_process(used: list[tuple[int, int, int]]) -> dict[int, list[int]]:
    """Return by process which uses of the model there were."""
    uses: dict[int, list[int]] = {}
    for _, process, nth in used:
        uses.setdefault(process, []).append(nth)
    return uses


@pytest.mark.parametrize(
    "using",
    [use, use_async, use.with_options(max_concurrency=4)],
    ids=["in turn", "async", "threads"],
)
def test_one_object_for_all_task_runs_of_a_worker(using: Any, tmp_path: Path) -> None:
    @flow
    def many() -> list[tuple[int, int, int]]:
        model = once_per_worker(Model, tmp_path / "story")
        used: list[tuple[int, int, int]] = using.map(range(MANY), model).result()
        return used

    used = many()
    assert [number for number, *_ in used] == list(range(MANY))
    for uses in per_process(used).values():
        assert sorted(uses) == list(range(1, len(uses) + 1))
    made = (tmp_path / "story").read_text().splitlines()
    assert {line.split()[-1] for line in made} == {str(process) for process in per_process(used)}
    assert len(made) == len(per_process(used))


@pytest.mark.usefixtures("in_this_process")
class TestSharing:
    def test_tasks_share_by_factory_and_arguments(
        self, tmp_path: Path, story: Callable[[], list[str]]
    ) -> None:
        path = tmp_path / "story"

        @flow
        def several() -> None:
            use.map(range(2), unmapped(once_per_worker(Model, path, "a"))).wait()
            use.submit(1, once_per_worker(Model, path, name="a")).wait()
            use(1, once_per_worker(Model, path, "a"))
            show([once_per_worker(Model, path, "a")])
            use(1, once_per_worker(Model, path, "b"))
            use(1, once_per_worker(Closed, path, "a"))

        several()
        # Given by name, an argument is another one: nobody has looked at the signature.
        assert story() == ["made a", "made a", "made b", "made a"]

    def test_each_element_of_a_map_may_be_one(self, tmp_path: Path) -> None:
        @flow
        def each() -> list[str]:
            models = [once_per_worker(Model, tmp_path / "story", name) for name in "aba"]
            return show.map(models).result()

        assert each() == ["a", "b", "a"]

    def test_a_task_called_by_a_task_shares_it(
        self, tmp_path: Path, story: Callable[[], list[str]]
    ) -> None:
        @task
        def outer(number: int, model: Model) -> int:
            own = once_per_worker(Model, model.path)
            return use(number, own)[2] + use(number, own)[2]

        @flow
        def nested() -> list[int]:
            return outer.map(range(3), once_per_worker(Model, tmp_path / "story")).result()

        assert nested() == [3, 7, 11]
        assert story() == ["made"]

    def test_one_may_be_made_of_another(
        self, tmp_path: Path, story: Callable[[], list[str]]
    ) -> None:
        path = tmp_path / "story"

        @flow
        def stacked() -> None:
            pool = once_per_worker(Closed, path, "pool")
            use(1, once_per_worker(Holder, pool))
            use(1, pool)

        stacked()
        wiring.disconnect()
        assert story() == ["made pool", "made holder", "closed holder", "closed pool"]


class Holder(Closed):
    """What is made of another one."""

    def __init__(self, pool: Closed) -> None:
        super().__init__(pool.path, "holder")


class TestClosing:
    @pytest.mark.parametrize(
        ("factory", "seen", "last"),
        [
            (Model, "m", "made m"),
            (Closed, "m", "closed m"),
            (Entered, "inside m", "left m"),
            (yielded, "m", "cleaned up m"),
            (managed, "m", "cleaned up m"),
        ],
        ids=["plain", "close", "with", "generator", "contextmanager"],
    )
    def test_at_the_end(
        self,
        factory: Callable[..., Any],
        seen: str,
        last: str,
        tmp_path: Path,
        story: Callable[[], list[str]],
    ) -> None:
        @flow
        def one() -> str:
            return show(once_per_worker(factory, tmp_path / "story", "m"))

        assert one() == seen
        assert story() == ["made m"]
        wiring.disconnect()
        assert story()[-1] == last
        assert one() == seen

    @pytest.mark.usefixtures("in_this_process")
    def test_a_failure_is_logged_and_others_are_closed(
        self, tmp_path: Path, story: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
    ) -> None:
        def fails() -> Iterator[int]:
            yield 1
            raise ConnectionError("gone")

        @flow
        def two() -> None:
            show(once_per_worker(Closed, tmp_path / "story"))
            show(once_per_worker(fails))

        two()
        wiring.disconnect()
        assert "closing what fails had made failed" in caplog.text
        assert "ConnectionError: gone" in caplog.text
        assert story() == ["made", "closed"]


class TestFailures:
    def test_failed_factory_is_the_task_runs_failure(self, tmp_path: Path) -> None:
        @task(retries=1)
        def patient(model: Model) -> str:
            return model.name

        @flow
        def retried() -> str:
            return patient(once_per_worker(broken, tmp_path / "story"))

        assert retried() == ""
        assert get_run("last")["patient"][0].attempts == 2

    def test_error_is_the_factorys_own(self, tmp_path: Path) -> None:
        @flow
        def failing() -> str:
            return show(once_per_worker(broken, tmp_path / "story"))

        with pytest.raises(ConnectionError, match="not yet") as caught:
            failing()
        assert caught.value.__cause__ is None
        error = get_run("last")["show"][0].error
        assert error is not None
        assert error.failure_class == "user"

    def test_timeout_ends_a_factory(self, tmp_path: Path) -> None:
        @task(timeout_seconds=0.2)
        def hasty(model: object) -> None:
            raise AssertionError(model)

        @flow
        def late() -> bool:
            event = once_per_worker(forever, tmp_path / "story")
            return hasty(event, return_state=True).name == "TimedOut"

        assert late()

    def test_future_in_an_argument(self) -> None:
        @flow
        def impossible(wrap: Callable[[Any], Any]) -> None:
            show(once_per_worker(Model, wrap(show.submit("a"))))

        for wrap in (lambda future: future, lambda future: [future], allow_failure):
            with pytest.raises(FutureError, match=r"once_per_worker\(Model, …\).*holds a future"):
                impossible(wrap)

    def test_what_cannot_be_pickled(self) -> None:
        @flow
        def impossible() -> None:
            show(once_per_worker(dict, lock=threading.Lock()))

        with pytest.raises(SerializationError, match=r"argument 'model'.*lock"):
            impossible()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: once_per_worker(*missing),
                r"once_per_worker: Model\(path.*missing a required",
            ),
            (lambda: once_per_worker(*no_function), "'model' is not callable"),
            (lambda: once_per_worker(asyncio.sleep, 1), "'sleep' is asynchronous"),
        ],
    )
    def test_refused_at_once(self, make: Callable[[], object], message: str) -> None:
        with pytest.raises(ParameterError, match=message):
            make()


missing: Any = (Model,)
no_function: Any = ("model",)


def forever(path: Path) -> Iterator[None]:
    """Take too long."""
    del path
    threading.Event().wait()
    yield None


class TestOutsideAFlow:
    @pytest.mark.parametrize("factory", [Closed, yielded])
    def test_made_for_the_call(
        self, factory: Callable[..., Any], tmp_path: Path, story: Callable[[], list[str]]
    ) -> None:
        assert show(once_per_worker(factory, tmp_path / "story", "m")) == "m"
        assert len(story()) == 2

    def test_made_for_an_asynchronous_call(
        self, tmp_path: Path, story: Callable[[], list[str]]
    ) -> None:
        call = use_async(3, model=once_per_worker(Closed, tmp_path / "story"))
        assert not (tmp_path / "story").exists()
        assert asyncio.run(call)[0] == 3
        assert story() == ["made", "closed"]

    def test_repr_keeps_arguments_to_itself(self) -> None:
        assert repr(once_per_worker(dict, password="secret")) == "once_per_worker(dict, …)"  # noqa: S106


def identities(planned: Flow[..., Any], *args: Any) -> bytes:
    """Return the identities of the first group."""
    return bytes(planned.plan(*args).groups[0].identities)


def test_identity_counts_factory_and_arguments() -> None:
    @flow
    def one(model: Any) -> Any:
        return show.submit(model)

    def identity(factory: Any, *args: Any) -> bytes:
        return identities(one, once_per_worker(factory, *args))

    assert identity(Model, Path("a")) == identity(Model, Path("a"))
    others = {
        identity(Model, Path("a")),
        identity(Model, Path("b")),
        identity(Closed, Path("a")),
        identity(Model, Path("a"), "name"),
    }
    assert len(others) == 4


def test_factory_may_log() -> None:
    def chatty() -> int:
        get_run_logger().warning("making it")
        return 1

    @flow
    def one() -> str:
        return show(once_per_worker(chatty))

    assert one() == "1"
    assert [record.message for record in get_run("last").logs()] == ["making it"]


def test_what_a_factory_sets_up_stays() -> None:
    """Variables and threads that the object needs are not put back after the first task run."""

    def needs_a_variable() -> str:
        os.environ["RAYSCHED_TEST_OBJECT"] = "set"
        return "object"

    @task
    def variable(model: str) -> str | None:
        del model
        return os.environ.get("RAYSCHED_TEST_OBJECT")

    @flow
    def twice() -> list[str | None]:
        model = once_per_worker(needs_a_variable)
        first = variable(model)
        return [first, variable(model)]

    assert twice() == ["set", "set"]
    os.environ.pop("RAYSCHED_TEST_OBJECT", None)
