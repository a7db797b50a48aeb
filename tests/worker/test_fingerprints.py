"""What tells failures apart, and what does not."""

from __future__ import annotations

import json
import linecache
import re
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from raysched.errors import TaskRunTimedOut
from raysched.model.options import TaskSpec
from raysched.model.values import ErrorInfo, FailureClass, TimeoutKind
from raysched.worker.causes import FIRST_FRAMES, LAST_FRAMES, causes_of
from raysched.worker.failures import describe_error, describe_timeout
from worker.unit_runs import new_context, new_run, outcome, outcomes

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES = [KeyError, ValueError, OSError, ZeroDivisionError, ArithmeticError]
NAMES = st.sampled_from(["parse", "load", "clean"])
FILE = "/home/me/pipelines/flow.py"


def code(source: str, file: str = FILE) -> dict[str, Any]:
    """Return what a source file of the user's defines."""
    source = textwrap.dedent(source)
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    scope: dict[str, Any] = {"__name__": "flow"}
    exec(compile(source, file, "exec"), scope)  # noqa: S102 - a file of the user's
    return scope


def info_of(function: Callable[..., Any], *args: Any) -> ErrorInfo:
    """Return what is known about what a function raises."""
    try:
        function(*args)
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return describe_error(error)
    raise AssertionError("nothing was raised")


def failing(
    name: str, error: type[Exception], blank: int = 0, middle: int = 0
) -> Callable[..., Any]:
    """Return a function of the user's that raises, so many lines into its file."""
    lines = (
        "\n" * blank
        + f"def {name}(value):\n"
        + "    1\n" * middle
        + f"    raise {error.__name__}(value)\n"
    )
    return code(lines)[name]  # type: ignore[no-any-return]


@given(
    NAMES, st.sampled_from(TYPES), st.tuples(*[st.integers(0, 20)] * 4), st.text(), st.integers()
)
def test_values_and_lines_do_not_matter(
    name: str, error: type[Exception], lines: tuple[int, int, int, int], text: str, number: int
) -> None:
    one = info_of(failing(name, error, *lines[:2]), text)
    other = info_of(failing(name, error, *lines[2:]), number)
    assert one.fingerprint == other.fingerprint
    assert len(one.fingerprint) == 16
    int(one.fingerprint, 16)


@given(
    st.lists(st.tuples(NAMES, st.sampled_from(TYPES)), min_size=2, max_size=2, unique=True),
    st.integers(0, 20),
)
def test_functions_and_classes_matter(two: list[tuple[str, type[Exception]]], blank: int) -> None:
    one, other = (info_of(failing(*each, blank), "") for each in two)
    assert one.fingerprint != other.fingerprint


def test_files_matter() -> None:
    source = "def f():\n    raise ValueError"
    prints = {
        info_of(code(source, file)["f"]).fingerprint for file in ("/home/me/a.py", "/home/me/b.py")
    }
    assert len(prints) == 2


def test_the_place_of_the_project_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def f():\n    raise ValueError"
    prints = set()
    for directory in ("/home/me/project", "/tmp/ray/session_1/working_dir_files/a1b2"):  # noqa: S108 - as Ray ships it
        monkeypatch.syspath_prepend(directory)
        prints.add(info_of(code(source, f"{directory}/pkg/flow.py")["f"]).fingerprint)
    assert len(prints) == 1


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_depth_of_a_recursion_does_not_matter(one: int, other: int) -> None:
    dive = code(
        """
        def dive(depth):
            if depth:
                return dive(depth - 1)
            raise ValueError
        """
    )["dive"]
    assert info_of(dive, one).fingerprint == info_of(dive, other).fingerprint


@pytest.mark.parametrize("base", ["__main__", "flow", __name__])
def test_the_module_of_ones_own_class_does_not_matter(base: str) -> None:
    """It is another one where the flow's file is run than where it is imported."""
    source = "class Empty(Exception): ...\ndef f():\n    raise Empty\n"
    scope = code(source)
    scope["Empty"].__module__ = base
    assert info_of(scope["f"]).fingerprint == info_of(code(source)["f"]).fingerprint


WRAPPERS = {
    "alone": "load(n)",
    "cause": "try:\n        load(n)\n    except KeyError as error:\n        raise {} from error",
    "context": "try:\n        load(n)\n    except KeyError:\n        raise {}",
}


def wrapped(how: str, error: str = "ValueError") -> dict[str, Any]:
    body = WRAPPERS[how].format(error)
    return code(f"def load(n):\n    raise KeyError(n)\ndef work(n):\n    {body}\n")


@pytest.mark.parametrize("how", WRAPPERS)
def test_the_innermost_cause_counts(how: str) -> None:
    alone = info_of(wrapped("alone")["work"], 1)
    assert info_of(wrapped(how)["work"], 2).fingerprint == alone.fingerprint
    assert info_of(wrapped(how, "OSError")["work"], 3).fingerprint == alone.fingerprint


def test_a_suppressed_context_does_not_count() -> None:
    source = (
        "def work():\n    try:\n        raise KeyError\n    except KeyError:\n        raise {}{}\n"
    )
    plain = info_of(code("def work():\n    raise OSError\n")["work"])
    hidden = info_of(code(source.format("OSError", " from None"))["work"])
    shown = info_of(code(source.format("OSError", ""))["work"])
    assert hidden.fingerprint == plain.fingerprint != shown.fingerprint


def test_the_first_leaf_of_a_group_counts() -> None:
    work = code(
        """
        def work():
            raise ExceptionGroup("two", [ExceptionGroup("one", [KeyError(1)]), OSError()])
        """
    )["work"]
    with pytest.raises(ExceptionGroup) as raised:
        work()
    assert isinstance(causes_of(raised.value)[-1], KeyError)
    assert (
        info_of(work).fingerprint
        != info_of(code("def work():\n    raise OSError")["work"]).fingerprint
    )


def test_causes_may_go_round() -> None:
    one, other = ValueError(1), KeyError(2)
    one.__cause__, other.__cause__ = other, one
    assert causes_of(one) == [one, other]
    assert describe_error(one).fingerprint


def test_a_chain_of_any_length_is_told() -> None:
    error = Exception("first")
    for number in range(3000):
        following = Exception(number)
        following.__cause__ = error
        error = following
    assert "first" in describe_error(error).traceback


def test_what_a_library_raises_is_told_apart_by_who_called_it() -> None:
    source = "def {}(table):\n    return table['missing']\n"
    table = pd.DataFrame({"there": [1]})
    infos = [info_of(code(source.format(name))[name], table) for name in ("one", "other")]
    assert infos[0].fingerprint != infos[1].fingerprint
    assert [frame["function"] for frame in infos[0].evidence["frames"] if frame["own"]][-1] == "one"


def test_timeouts_are_told_apart_by_kind_and_task() -> None:
    late = describe_timeout("a[0]", TimeoutKind.ATTEMPT, 1.0).fingerprint
    assert describe_timeout("a[1]", TimeoutKind.ATTEMPT, 2.0).fingerprint == late
    assert describe_timeout("a[0]", TimeoutKind.HEARTBEAT, 1.0).fingerprint != late
    assert describe_timeout("b[0]", TimeoutKind.ATTEMPT, 1.0).fingerprint != late


def test_a_timeout_is_one_cause_whoever_tells_of_it() -> None:
    """The task itself, or what has ended its worker."""
    told = outcome(threading.Event().wait, options={"timeout_seconds": 0.05}).error
    ended = describe_timeout("work[7]", TimeoutKind.ATTEMPT, 0.05, reaction="and did not react")
    assert told.fingerprint == ended.fingerprint


class Row(BaseModel):
    n: int


CHECKS: dict[str, Any] = {
    "type": list[Row],
    "other type": dict[str, Row],
    "function": lambda _: False,
}


def refused(check: Any, value: object = None, name: str = "work") -> str:
    """Return the fingerprint of a result that is refused."""
    spec = TaskSpec(name, lambda: value, check=check)
    (found,) = outcomes(new_run(new_context(spec), [((), {})]))
    assert found.error.type.endswith("CheckFailed")
    return found.error.fingerprint


def test_refused_results_are_told_apart_by_check_and_task() -> None:
    prints = {refused(check, name=name) for check in CHECKS.values() for name in ("one", "two")}
    assert len(prints) == 2 * len(CHECKS)


@pytest.mark.parametrize("check", [CHECKS["type"], CHECKS["other type"]], ids=repr)
def test_refused_values_do_not_matter(check: Any) -> None:
    assert refused(check, 1) == refused(check, "x")


def test_what_cannot_be_pickled_is_told_apart_by_task() -> None:
    def of(name: str) -> str:
        spec = TaskSpec(name, lambda: (n for n in "generator"))
        (found,) = outcomes(new_run(new_context(spec), [((), {})]))
        assert found.error.type.endswith("SerializationError")
        return found.error.fingerprint

    assert of("one") == of("one") != of("two")


def test_the_name_of_a_task_does_not_matter_where_its_own_code_has_raised() -> None:
    def of(name: str) -> str:
        spec = TaskSpec(name, failing("load", ValueError))
        (found,) = outcomes(new_run(new_context(spec), [((1,), {})]))
        return found.error.fingerprint

    assert of("one") == of("two")


def test_a_cancellation_has_no_reason_in_its_task() -> None:
    prints = set()
    for name in ("one", "two"):
        unit = new_run(new_context(TaskSpec(name, int)), [((), {})])
        unit.cancel()
        (found,) = outcomes(unit)
        prints.add(found.error.fingerprint)
    assert len(prints) == 1


def test_where_code_was_interrupted_does_not_matter() -> None:
    prints = set()
    for name in ("one", "other"):
        try:
            failing(name, OSError)("")
        except OSError as error:
            stack = error
            prints.add(describe_timeout("a[0]", TimeoutKind.ATTEMPT, 1.0, stack=stack).fingerprint)
    assert len(prints) == 1


def test_the_kinds_of_timeouts_name_their_option() -> None:
    for kind, option in (
        (TimeoutKind.ATTEMPT, "timeout_seconds=2.5"),
        (TimeoutKind.HEARTBEAT, "heartbeat_timeout_seconds=2.5"),
        (TimeoutKind.QUEUED, "queue_timeout_seconds=2.5"),
        (TimeoutKind.TOTAL, "total_timeout_seconds=2.5"),
    ):
        info = describe_timeout("work", kind, 2.5, reaction="and so on")
        assert option in info.message
        assert info.message.endswith(" and so on")
        assert (info.kind, info.failure_class) == (kind, FailureClass.TIMEOUT)
        assert info.type.endswith(TaskRunTimedOut.__name__)


def test_frames_tell_where_the_innermost_cause_was_raised() -> None:
    frames = info_of(wrapped("cause")["work"], 1).evidence["frames"]
    own = [frame for frame in frames if frame["file"] == FILE]
    assert [(frame["function"], frame["line"], frame["code"]) for frame in own] == [
        ("work", 5, "load(n)"),
        ("load", 2, "raise KeyError(n)"),
    ]
    assert all(frame["own"] for frame in own)


def test_deep_stacks_are_bounded() -> None:
    dive = code("def dive(n):\n    return dive(n - 1) if n else 1 / 0\n")["dive"]
    info = info_of(dive, 200)
    frames = info.evidence["frames"]
    assert len(frames) == FIRST_FRAMES + LAST_FRAMES
    assert "Previous line repeated" in info.traceback


def test_evidence_is_json() -> None:
    info = info_of(code("def f(): raise ValueError", "/home/me/\udcff.py")["f"])
    json.dumps(info.evidence).encode()
    json.dumps(info.evidence, ensure_ascii=False).encode()


def test_rows_of_library_frames_are_one_line() -> None:
    source = "def f(text):\n    pattern(text)\ndef pattern(text):\n    return re.compile(text)\n"
    scope = code(source)
    scope["re"] = re
    text = info_of(scope["f"], "(").traceback
    assert "    pattern(text)\n" in text
    assert re.search(
        r"    return re\.compile\(text\)\n(?: +\^+\n)?  … \d frames in re …\n  File \S+re/", text
    )
    assert text.splitlines()[-1].startswith("re.error: missing )")


def test_without_own_frames_all_are_told() -> None:
    with pytest.raises(ValueError, match="Expecting") as raised:
        json.loads("{")
    stack = raised.value.__traceback__
    assert stack is not None
    text = describe_error(raised.value.with_traceback(stack.tb_next)).traceback
    assert "…" not in text
    assert text.count("  File ") > 2
