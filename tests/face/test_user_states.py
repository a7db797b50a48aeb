import pickle
from typing import Any

import pytest

from face.around import in_flow
from raysched import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    ResultError,
    Running,
    Scheduled,
    State,
    StateType,
    TaskRunCancelled,
    TaskRunCrashed,
    TaskRunFailed,
    TaskRunSkipped,
    task,
)

PREDICATES = [
    "scheduled",
    "pending",
    "running",
    "awaiting_retry",
    "paused",
    "cancelling",
    "final",
    "completed",
    "cached",
    "skipped",
    "failed",
    "timed_out",
    "upstream_failed",
    "crashed",
    "cancelled",
]


@pytest.mark.parametrize(
    ("kind", "true"),
    [
        (StateType.SCHEDULED, {"scheduled"}),
        (StateType.PENDING, {"pending"}),
        (StateType.RUNNING, {"running"}),
        (StateType.AWAITING_RETRY, {"awaiting_retry"}),
        (StateType.PAUSED, {"paused"}),
        (StateType.CANCELLING, {"cancelling"}),
        (StateType.COMPLETED, {"final", "completed"}),
        (StateType.CACHED, {"final", "completed", "cached"}),
        (StateType.SKIPPED, {"final", "completed", "skipped"}),
        (StateType.FAILED, {"final", "failed"}),
        (StateType.TIMED_OUT, {"final", "failed", "timed_out"}),
        (StateType.UPSTREAM_FAILED, {"final", "failed", "upstream_failed"}),
        (StateType.CRASHED, {"final", "crashed"}),
        (StateType.CANCELLED, {"final", "cancelled"}),
    ],
)
def test_predicates(kind: StateType, true: set[str]) -> None:
    state: State[None] = State(kind)
    assert {name for name in PREDICATES if getattr(state, f"is_{name}")()} == true


@pytest.mark.parametrize("kind", StateType)
def test_names(kind: StateType) -> None:
    assert State(kind).name == "".join(word.capitalize() for word in kind.name.split("_"))
    assert State(kind, "Other").name == "Other"


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (Scheduled(), StateType.SCHEDULED),
        (Pending(), StateType.PENDING),
        (Running(), StateType.RUNNING),
        (Completed(data=1), StateType.COMPLETED),
        (Failed(), StateType.FAILED),
        (Crashed(), StateType.CRASHED),
        (Cancelled(), StateType.CANCELLED),
    ],
    ids=str,
)
def test_constructors(state: State[Any], kind: StateType) -> None:
    assert state.type is kind


class TestResult:
    def test_of_a_success(self) -> None:
        assert Completed(data=3).result() == 3

    @pytest.mark.parametrize(
        ("state", "error", "message"),
        [
            (Failed(message="why"), TaskRunFailed, "why"),
            (Failed(data="text", message="other"), TaskRunFailed, "text"),
            (Failed(data=KeyError("k")), KeyError, "k"),
            (Failed(), TaskRunFailed, "ended Failed"),
            (Failed(data=Failed(data=KeyError("in"))), KeyError, "in"),  # type: ignore[arg-type]
            (Crashed(message="gone"), TaskRunCrashed, "gone"),
            (Cancelled(), TaskRunCancelled, "ended Cancelled"),
            (State(StateType.SKIPPED), TaskRunSkipped, "ended Skipped"),
        ],
        ids=["message", "text", "exception", "nothing", "state", "crash", "cancel", "skip"],
    )
    def test_of_a_failure(self, state: State[Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            state.result()
        assert isinstance(state.result(raise_on_failure=False), error)

    def test_of_an_open_state(self) -> None:
        with pytest.raises(ResultError, match=r"Running.*future\.wait"):
            Running().result()


def test_texts() -> None:
    assert repr(Failed(message="m")) == "Failed(message='m', type=FAILED)"
    assert str(Failed(message="m")) == "Failed('m')"
    assert str(Completed()) == "Completed()"


def test_pickling() -> None:
    copy = pickle.loads(pickle.dumps(Completed(data=[1], message="m", name="n")))
    assert (copy.type, copy.data, copy.message, copy.name) == (
        StateType.COMPLETED,
        [1],
        "m",
        "n",
    )


class TestReturnedByTasks:
    def test_completed(self) -> None:
        @task
        def returning() -> Any:
            return Completed(data=4)

        assert in_flow(returning) == 4

    def test_failed(self) -> None:
        @task
        def returning() -> Any:
            return Failed(message="no rows")

        with pytest.raises(TaskRunFailed, match="no rows"):
            in_flow(returning)

    def test_cancelled(self) -> None:
        @task
        def returning() -> Any:
            return Cancelled(message="not today")

        assert in_flow(lambda: returning.submit(return_state=True).is_cancelled())
