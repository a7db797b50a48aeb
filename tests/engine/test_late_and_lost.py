"""Backends that tell things twice, and that lose what they were given to keep."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from face.around import ignore
from raysched import ResultLost, StateType, flow, get_run, task
from raysched.backends.inline import InlineBackend
from raysched.engine.ports import Lost, Message, Progressed, Reported, Sink, UnitCall
from raysched.model.values import CrashKind, ErrorInfo, FailureClass, LargeValue
from raysched.settings import settings
from raysched.testing import FakeClock
from raysched.wiring import Configuration, configure

LARGE = 200_000
"""Bytes: more than a report takes along."""

made: list[str] = []
"""What has run, in order: the tasks are in this process."""


class Twice(InlineBackend):
    """Tells what became of task runs by the channel and then again in the unit's report."""

    def start(self, sink: Sink) -> None:
        def tell(message: Message) -> None:
            if isinstance(message, Reported):
                sink(Progressed(message.unit, message.report))
            sink(message)

        super().start(tell)


class Forgetful(InlineBackend):
    """Loses the large values of the first units that made some, when they are wanted.

    Attributes:
        losses: How many units lose theirs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.losses = 1
        self._lost: list[Any] = []
        self._sink_of_engine: Sink | None = None

    def start(self, sink: Sink) -> None:
        self._sink_of_engine = sink
        super().start(sink)

    def submit(self, call: UnitCall) -> None:
        if self._lose(call.handles):
            assert self._sink_of_engine is not None
            lost = ErrorInfo(
                "",
                "the object is lost",
                failure_class=FailureClass.INFRASTRUCTURE,
                kind=CrashKind.OBJECT_LOST,
            )
            self._sink_of_engine(Lost(call.id, lost))
            return
        super().submit(call)

    def are_lost(self, values: Sequence[LargeValue]) -> Sequence[bool]:
        return [any(value.handle is lost for lost in self._lost) for value in values]

    def fetch(self, value: LargeValue) -> Any:
        if self._lose([value.handle]):
            raise ResultLost("the object is lost")
        return super().fetch(value)

    def _lose(self, handles: Sequence[Any]) -> bool:
        """Lose what was not lost before, as long as something is to be lost."""
        for handle in handles:
            known = any(handle is lost for lost in self._lost)
            if known or self.losses > 0:
                if not known:
                    self.losses -= 1
                    self._lost.append(handle)
                return True
        return False


Use = Callable[[InlineBackend], None]


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Have the flows of a test run on a backend."""
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    settings.cache_clear()
    made.clear()
    before = configure(Configuration())
    yield lambda backend: ignore(configure(Configuration(backend, clock=FakeClock())))
    configure(before)
    settings.cache_clear()


@task(persist_result=False)
def make(name: str) -> bytes:
    made.append(name)
    return name.encode() * LARGE


@task
def measure(value: bytes) -> int:
    made.append("measure")
    return len(value)


class TestLateReports:
    def test_are_refused_and_counted(self, use: Use) -> None:
        use(Twice())

        @flow
        def around() -> list[int]:
            return measure.map([b"a", b"bc"]).result()

        assert around() == [1, 2]
        run = get_run("last")
        assert run.late == 2
        assert [each.attempts for each in run.task_runs()] == [1, 1]

    def test_are_none_otherwise(self, use: Use) -> None:
        use(InlineBackend())

        @flow
        def around() -> int:
            return measure(b"a")

        around()
        assert get_run("last").late == 0


class TestLostValues:
    def test_are_computed_again_for_what_needs_them(self, use: Use) -> None:
        use(Forgetful())

        @flow
        def around() -> int:
            value = make.submit("a")
            value.wait()
            return measure.submit(value).result()

        assert around() == LARGE
        assert made == ["a", "a", "measure"]
        run = get_run("last")
        kept = run.task_run("make[0]")
        assert (kept.state.type, kept.attempts) == (StateType.COMPLETED, 2)
        assert run.task_run("measure[0]").attempts == 1
        assert "computed again" in kept.history[-1].stop_reason

    def test_that_are_kept_are_read_again(self, use: Use) -> None:
        backend = Forgetful()
        backend.losses = 2
        use(backend)

        @flow
        def around() -> tuple[int, int]:
            values = make.with_options(persist_result=True).map(["a", "b"])
            values.wait()
            return len(values[0].result()), measure.submit(values[1]).result()

        assert around() == (LARGE, LARGE)
        assert made == ["a", "b", "measure"]
        assert [each.attempts for each in get_run("last").task_runs()] == [1, 1, 1]

    def test_are_computed_again_for_the_flow(self, use: Use) -> None:
        use(Forgetful())

        @flow
        def around() -> int:
            return len(make("a"))

        assert around() == LARGE
        assert made == ["a", "a"]

    def test_that_cannot_be_had_crash_who_needs_them(self, use: Use) -> None:
        backend = Forgetful()
        backend.losses = 3
        use(backend)

        @flow
        def around() -> str:
            value = make.with_options(crash_retries=2).submit("a")
            value.wait()
            future = measure.submit(value)
            future.wait()
            state = future.state
            return f"{state.type.name}: {state.message}"

        assert around() == (
            "CRASHED: the value of make[0] was lost with its node, and cannot be computed again"
        )
        assert made == ["a"] * 3
