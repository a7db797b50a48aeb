"""`raysched run` as people type it; inline, but for one run on Ray."""

import re
from pathlib import Path

import pytest

from cli.commands import Command
from raysched.faults import Fault, to_text

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"

pytestmark = pytest.mark.usefixtures("here")


class TestCompleted:
    def test_tells_what_happened_and_what_to_type_next(self, raysched: Command) -> None:
        done = raysched("run", "sums.py", "--backend", "inline")
        assert (done.code, done.err) == (0, "")
        lines = done.out.splitlines()
        assert re.fullmatch(r"adding [0-9a-f]{8} started on inline, in this process", lines[0])
        assert any(line.endswith("INFO    parse[2] parsing 2") for line in lines)
        assert any(line.endswith("WARNING adding adding 3 for x") for line in lines)
        assert any(line.endswith("parse 3/3, total 1/1") for line in lines)
        assert any(re.match(r"✔ adding [0-9a-f]{8} COMPLETED in ", line) for line in lines)
        assert "returned 6" in lines
        assert re.fullmatch(r"run   [0-9a-f]{32}", lines[-2])
        assert lines[-1] == "next  raysched show last   raysched logs last"

    def test_json_has_the_run_alone_on_standard_output(self, raysched: Command) -> None:
        done = raysched("run", "sums.py", "--backend", "inline", "--json", "-p", "n=2")
        run = done.json()
        assert done.code == 0
        assert (run["flow"], run["state"], run["tasks"]) == (
            "adding",
            "COMPLETED",
            {"COMPLETED": 3},
        )
        assert (run["failures"], run["parameters"]) == ([], {"n": 2, "name": "x"})
        assert re.fullmatch(TIME, run["started"])
        assert re.fullmatch(TIME, run["ended"])
        assert "parsing 1" in done.err

    @pytest.mark.parametrize(
        "arguments",
        [
            ("sums.py", "--param", "n=1", "--param", "name=007"),
            ("sums.py:adding", "--params-json", '{"n": 1, "name": "007"}'),
            ("sums:adding", "--params-json", "@parameters.json"),
            ("sums:adding", "--params-json", "@-"),
        ],
    )
    def test_parameters_and_targets(self, raysched: Command, arguments: tuple[str, ...]) -> None:
        parameters = '{"n": 1, "name": "007"}'
        Path("parameters.json").write_text(parameters, encoding="utf-8")
        done = raysched("run", *arguments, "--backend", "inline", "--json", stdin=parameters)
        assert done.json()["parameters"] == {"n": 1, "name": "007"}

    def test_on_ray_a_sibling_module_is_found(self, raysched: Command) -> None:
        done = raysched("run", "sums.py", "--json")
        assert done.code == 0, done.err
        assert done.json()["tasks"] == {"COMPLETED": 4}
        assert done.json()["backend"].startswith("Ray ")

    def test_tells_why_task_runs_were_skipped(self, raysched: Command) -> None:
        source = (
            "from raysched import flow, skip, task\n"
            "@task\ndef read(n):\n    if n:\n        skip(f'nothing new for {n}')\n"
            "@task\ndef use(n):\n    return n\n"
            "@flow\ndef reading():\n    use.map(read.map(range(7))).wait()\n"
        )
        Path("reading.py").write_text(source, encoding="utf-8")
        done = raysched("run", "reading.py", "--backend", "inline")
        assert done.code == 0
        told = "12 task runs skipped: read 6, use 6\n  read 1: nothing new for 1\n"
        assert told in done.out
        assert "  … and 7 more reasons: raysched show " in done.out

    def test_async_flow(self, raysched: Command) -> None:
        source = "from raysched import flow\n@flow\nasync def going(): return 5\n"
        Path("later.py").write_text(source, encoding="utf-8")
        done = raysched("run", "later.py", "--backend", "inline")
        assert (done.code, "returned 5" in done.out) == (0, True)


class TestFailed:
    def test_root_comes_first_and_what_followed_is_a_count(self, raysched: Command) -> None:
        done = raysched("run", "sums.py", "--backend", "inline", "--param", "n=5")
        assert done.code == 1
        shown = done.out[done.out.index("✘ adding") :]
        assert shown.count("cannot parse 3") == 2  # in the message of the run, and as the root
        root, followed = shown.index("parse[3]  FAILED after 2 attempts"), shown.index("never ran")
        assert root < followed
        assert "  ValueError: cannot parse 3\n  sums.py:10 in parse\n" in shown
        assert "1 task run never ran because of that: total 1" in shown
        assert re.search(r"^parse +5 +4 +1 *$", shown, re.MULTILINE)

    def test_json_names_the_root(self, raysched: Command) -> None:
        done = raysched("run", "sums.py", "--backend", "inline", "--param", "n=5", "--json")
        run = done.json()
        assert (done.code, run["state"]) == (1, "FAILED")
        assert run["tasks"] == {"COMPLETED": 4, "FAILED": 1, "UPSTREAM_FAILED": 1}
        (root,) = run["failures"]
        assert (root["key"], root["attempts"], root["error"]["type"]) == (
            "parse[3]",
            2,
            "ValueError",
        )

    def test_flow_function_that_raises_shows_its_last_frame(self, raysched: Command) -> None:
        source = "from raysched import flow\n@flow\ndef bad():\n    raise KeyError('k')\n"
        Path("raising.py").write_text(source, encoding="utf-8")
        done = raysched("run", "raising.py", "--backend", "inline")
        assert done.code == 1
        assert (
            "bad  FAILED, in the flow function\n  KeyError: 'k'\n  raising.py:4 in bad" in done.out
        )

    def test_failure_in_a_subflow_is_told_once_where_it_was(self, raysched: Command) -> None:
        source = (
            "from sums import adding\nfrom raysched import flow\n"
            "@flow\ndef around():\n    return adding(5)\n"
        )
        Path("nesting.py").write_text(source, encoding="utf-8")
        done = raysched("run", "nesting.py", "--backend", "inline")
        assert done.code == 1
        shown = done.out[done.out.index("✘ around") :]
        assert "in the flow function" not in shown
        assert shown.index("✘ adding") < shown.index("parse[3]  FAILED after 2 attempts")
        assert shown.count("sums.py:10 in parse") == 1

    def test_failures_that_are_alike_are_told_once(self, raysched: Command) -> None:
        source = (
            "from raysched import flow, task\n"
            "@task(max_same_failures=0)\ndef fail(n):\n    raise ValueError(n)\n"
            "@flow\ndef many(number=9):\n    fail.map(range(number)).wait()\n"
        )
        Path("failing.py").write_text(source, encoding="utf-8")
        done = raysched("run", "failing.py", "--backend", "inline")
        assert done.out.count("ValueError: ") == 1
        assert "and 8 more like it: fail[1], fail[2], fail[3], fail[4], …" in done.out
        done = raysched("run", "failing.py", "--backend", "inline", "-p", "number=2500")
        assert "and 2,499 more like it: fail[1], fail[2], fail[3], fail[4], …" in done.out
        assert "more failed themselves" not in done.out
        two = raysched("run", "failing.py", "--backend", "inline", "-p", "number=2").out
        assert "and 1 more like it: fail[1]\n" in two

    def test_fallback_that_fails_comes_after_what_it_was_called_for(
        self, raysched: Command, looking: Command
    ) -> None:
        source = (
            "from raysched import flow, task\n"
            "def empty(n):\n    return {}[n]\n"
            "@task(retries=1, fallback=empty)\ndef read(n):\n    raise OSError('no such disk')\n"
            "@flow\ndef reading():\n    read.submit(7).wait()\n"
        )
        Path("reading.py").write_text(source, encoding="utf-8")
        done = raysched("run", "reading.py", "--backend", "inline")
        told = (
            "read[0]  FAILED after 3 attempts\n"
            "  OSError: no such disk\n"
            "  reading.py:6 in read\n"
            "    raise OSError('no such disk')\n"
            "  attempt 3 was its fallback, which failed too:\n"
            "  KeyError: 7\n"
            "  reading.py:3 in empty\n"
            "    return {}[n]\n"
        )
        assert told in done.out
        shown = looking("show", "last", "--task", "read[0]").out
        assert told in shown
        assert "traceback of attempt 2\n" in shown
        assert "traceback of attempt 3\n" in shown

    def test_task_run_that_completed_by_its_fallback_tells_what_had_failed(
        self, raysched: Command, looking: Command
    ) -> None:
        source = (
            "from raysched import flow, task\n"
            "@task(fallback=lambda n: -n)\ndef read(n):\n    raise OSError('no such disk')\n"
            "@flow\ndef reading():\n    return read(7)\n"
        )
        Path("reading.py").write_text(source, encoding="utf-8")
        assert "returned -7\n" in raysched("run", "reading.py", "--backend", "inline").out
        shown = looking("show", "last", "--task", "read[0]").out
        assert "read[0]  COMPLETED after 2 attempts\n  OSError: no such disk\n" in shown
        assert "  attempt 2 was its fallback\n" in shown

    def test_map_that_missed_its_min_success_says_so(self, raysched: Command) -> None:
        source = (
            "from raysched import flow, task\n"
            "@task\ndef read(n):\n    return 1 // (n - 2)\n"
            "@task\ndef total(numbers):\n    return sum(numbers)\n"
            "@flow\ndef reading(share: float):\n"
            "    total.submit(read.map(range(4), min_success=share)).wait()\n"
        )
        Path("reading.py").write_text(source, encoding="utf-8")
        command = ("run", "reading.py", "--backend", "inline", "-p")
        missed, held = raysched(*command, "share=0.9").out, raysched(*command, "share=0.7").out
        assert "read: 3 of 4 succeeded, and min_success asks for 4\n" in missed
        assert "min_success" not in held

    def test_message_does_not_command_the_terminal(
        self, raysched: Command, looking: Command
    ) -> None:
        source = (
            "from raysched import flow, task\n"
            "@task\ndef fail():\n    raise ValueError('\\x1b[31mred')\n"
            "@flow\ndef failing():\n    fail()\n"
        )
        Path("failing.py").write_text(source, encoding="utf-8")
        out = raysched("run", "failing.py", "--backend", "inline").out
        assert "  ValueError: \\x1b[31mred\n" in out
        assert "\x1b" not in out + looking("show", "last").out

    def test_sys_exit_in_the_flow_is_no_success(self, raysched: Command) -> None:
        source = "import sys\nfrom raysched import flow\n@flow\ndef leave():\n    sys.exit(0)\n"
        Path("leaving.py").write_text(source, encoding="utf-8")
        done = raysched("run", "leaving.py", "--backend", "inline")
        assert done.code == 1

    def test_limit_goes_over_the_flows_own(self, raysched: Command) -> None:
        source = (
            "import asyncio\nfrom raysched import flow, task\nrunning = []\n"
            "@task\nasync def count(n):\n    running.append(n)\n    await asyncio.sleep(0)\n"
            "    number = len(running)\n    running.remove(n)\n    return number\n"
            "@flow(max_parallel=1)\ndef counting():\n    return max(count.map(range(9)).result())\n"
        )
        Path("counting.py").write_text(source, encoding="utf-8")
        command = ("run", "counting.py", "--backend", "inline")
        assert "returned 1\n" in raysched(*command).out
        assert "returned 3\n" in raysched(*command, "--max-parallel", "3").out


def test_bug_of_raysched_is_one_message(
    raysched: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault("flow: before end", "raise", times=100, error="builtins:NameError")
    monkeypatch.setenv("RAYSCHED_FAULT_POINTS", to_text([fault], tmp_path))
    done = raysched("run", "sums.py", "--backend", "inline")
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "NameError: fault point 'flow: before end'" in done.err
    assert "Traceback" not in done.err
    done = raysched("--debug", "run", "sums.py", "--backend", "inline")
    assert "Traceback" in done.err


class TestBadUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("missing.py",), "there is no file"),
            (("sums.py", "--param", "n"), "give it as name=value"),
            (("sums.py", "--param", "m=1"), "m"),
            (("sums.py", "--param", "n=many"), "n"),
            (("sums.py", "--backend", "dask"), "--backend"),
            (("sums.py", "--max-parallel", "0"), "--max-parallel"),
            (("sums.py", "--nonsense"), "--nonsense"),
            ((), "TARGET"),
        ],
    )
    def test_is_one_message_and_code_2(
        self, raysched: Command, arguments: tuple[str, ...], message: str
    ) -> None:
        done = raysched("run", "--backend", "inline", *arguments)
        assert (done.code, done.out) == (2, "")
        assert message in done.err
        assert "Traceback" not in done.err
        assert raysched("runs", "--json").json() == []

    def test_parameter_that_does_not_fit_shows_the_signature(self, raysched: Command) -> None:
        done = raysched("run", "sums.py", "--backend", "inline", "--param", "n=many")
        assert "adding(n: int = 3, name: str = 'x') -> int" in done.err

    def test_database_that_cannot_be_written_is_code_1(
        self, raysched: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYSCHED_HOME", "/proc/nowhere")
        done = raysched("run", "sums.py", "--backend", "inline")
        assert (done.code, "Traceback" in done.err) == (1, False)
        assert done.err.startswith("error: /proc/nowhere")

    def test_debug_shows_the_traceback(self, raysched: Command) -> None:
        done = raysched("--debug", "run", "missing.py")
        assert done.code != 0
        assert "Traceback" in done.err
