"""What a process leaves behind that died of a fatal error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raysched.worker import crashes

SCRIPT = """
import ctypes, os, signal, sys, threading
from pathlib import Path
from raysched.worker import crashes

def inner():
    {death}

def outer():
    inner()

path = crashes.enable(Path(sys.argv[1]))
assert path == crashes.file_of(Path(sys.argv[1]), os.getpid())
outer()
"""


def death(how: str, directory: Path) -> str:
    """Return what is left of a process that dies like this."""
    file = directory / "script.py"
    file.write_text(SCRIPT.format(death=how))
    command = [sys.executable, str(file), str(directory / "fatal")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    _, said = process.communicate()
    assert process.returncode < 0, said
    return crashes.read(crashes.file_of(directory / "fatal", process.pid))


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_a_signal_is_told_with_the_stack(name: str, tmp_path: Path) -> None:
    text = death(f"os.kill(os.getpid(), signal.{name})", tmp_path)
    assert text.startswith("Fatal Python error: ")
    evidence = crashes.evidence_of(text)
    assert evidence["signal"] == name
    assert evidence["fatal_error"] == text
    frames = [(frame["function"], frame["own"]) for frame in evidence["frames"]]
    assert frames == [("<module>", True), ("outer", True), ("inner", True)]
    assert evidence["frames"][-1]["file"] == str(tmp_path / "script.py")


def test_a_crash_in_code_of_c(tmp_path: Path) -> None:
    evidence = crashes.evidence_of(death("ctypes.string_at(0)", tmp_path))
    assert evidence["signal"] == "SIGSEGV"
    *own, last = evidence["frames"]
    assert (last["function"], last["own"]) == ("string_at", False)
    assert own[-1]["code"] == "ctypes.string_at(0)"
    assert all(frame["own"] for frame in own)


def test_the_thread_that_died_comes_first(tmp_path: Path) -> None:
    how = "threading.Thread(target=ctypes.string_at, args=(0,)).start()"
    text = death(f"{how}; threading.Event().wait()", tmp_path)
    assert text.index("Current thread") < text.index("Thread 0x")
    assert text.endswith("in <module>")  # of the main thread, which waits
    assert [frame["function"] for frame in crashes.evidence_of(text)["frames"]][-1] == "string_at"


def test_kill_9_leaves_nothing(tmp_path: Path) -> None:
    text = death("os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert text == ""
    assert crashes.evidence_of(text) == {}


def test_a_child_that_dies_leaves_no_trace_of_its_parent(tmp_path: Path) -> None:
    how = """if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    os.wait()
    os.kill(os.getpid(), signal.SIGKILL)"""
    assert death(how, tmp_path) == ""


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert crashes.read(tmp_path / "1.fatal") == ""


def test_texts_are_bounded_and_readable(tmp_path: Path) -> None:
    own = str(Path(crashes.__file__))
    file = tmp_path / "1.fatal"
    threads = "".join(
        f'Thread 0x{number:016x} (most recent call first):\n  File "/a.py", line 1 in f\n\n'
        for number in range(1000)
    )
    file.write_text(
        "Fatal Python error: Bus error\n\n"
        f'Thread 0x01 (most recent call first):\n  File "{own}", line 1 in f\n\n{threads}'
        f'Current thread 0x02 (most recent call first):\n  File "/b.py", line 2 in g\n'
        f'  File "{own}", line 1 in f\n  File "/ray.py", line 3 in main\n\n'
        "Extension modules: numpy (total: 1)\n"
    )
    text = crashes.read(file)
    assert len(text) == crashes.FATAL_ERROR_MAX_CHARACTERS
    assert own not in text
    assert "Extension" not in text
    assert "/ray.py" not in text
    assert text.splitlines()[2:4] == [
        "Current thread 0x02 (most recent call first):",
        '  File "/b.py", line 2 in g',
    ]
