"""Nobody resumes at night: `raysched run --supervise` and `--key`."""

import json
import os
import signal

import psutil
import pytest

from faults.drivers import until
from raysched import get_run, get_runs
from raysched.model.states import StateType
from resume.places import CountingPlace

DYING = """
from common import *

@task
def load(n):
    ran()
    return n

@task
def work(n):
    ran()
    if n == 2 and (once("first") or once("second")):
        die()
    return n

@flow
def main(n: int = 4):
    return sum(work.map(load.map(range(n)).result()).result())
"""

SLOW = """
from common import *

@task
def work():
    mark("working")
    wait_for("go")
    return 1

@flow
def main():
    return work()
"""

FAILING = """
from common import *

@task
def work(n):
    ran()
    if not is_there("mended"):
        raise ValueError("not yet")
    return n

@flow
def main(n: int = 7):
    return work(n)
"""


PAYING = """
from common import *

@task(idempotent=False)
def pay(n):
    ran()
    die()

@flow
def main(n: int = 7):
    return pay(n)
"""


class TestSupervise:
    def test_goes_on_with_the_run_whenever_its_driver_dies(self, place: CountingPlace) -> None:
        place.write(DYING)
        told = place.done("run", "flows.py", "--supervise")
        assert "was killed by SIGKILL: it is resumed in 1 s (1 of 10 times)" in told
        assert "resumed in 2 s (2 of 10 times)" in told
        assert "returned 6" in told
        (run,) = get_runs()
        assert (run.state.type, run.run_count) == (StateType.COMPLETED, 3)
        assert run.name == f"main-{run.id[:6]}"
        assert {place.executions[f"load[{n}]"] for n in range(4)} == {1}

    def test_gives_up_after_so_many_times(self, place: CountingPlace) -> None:
        place.write(DYING)
        driver = place.raysched("run", "flows.py", "--supervise", "--max-resumes", "1")
        assert driver.process.returncode == 128 + signal.SIGKILL, driver.output
        assert "that is enough" in driver.output
        assert get_run("last").lost

    def test_a_flow_that_fails_is_not_run_again(self, place: CountingPlace) -> None:
        place.write(FAILING)
        driver = place.raysched("run", "flows.py", "--supervise")
        assert driver.process.returncode == 1, driver.output
        assert place.executions == {"work[0]": 1}

    def test_what_must_not_run_twice_is_left_to_a_person(self, place: CountingPlace) -> None:
        place.write(PAYING)
        driver = place.raysched("run", "flows.py", "--supervise")
        assert driver.process.returncode == 128 + signal.SIGKILL, driver.output
        assert "is not resumed: pay[0] may have run already (CRASHED)" in driver.output
        assert get_run("last").run_count == 1
        assert place.executions == {"pay[0]": 1}

    def test_what_cannot_be_right_is_told_once(self, place: CountingPlace) -> None:
        place.write(FAILING)
        driver = place.raysched("run", "flows.py:maine", "--supervise")
        assert driver.process.returncode == 2, driver.output
        assert driver.output.count("did you mean main?") == 1

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_passes_signals_on_and_does_not_go_on_then(
        self, place: CountingPlace, number: signal.Signals
    ) -> None:
        place.write(SLOW)
        driver = place.run("flows.py", "--supervise")
        place.until_marked("working")
        os.kill(driver.process.pid, number)
        assert driver.finish() == 1, driver.output
        assert get_run("last").state.type is StateType.CANCELLED
        assert "resumed" not in driver.output

    def test_a_driver_that_is_killed_from_outside(self, place: CountingPlace) -> None:
        place.write(SLOW)
        driver = place.run("flows.py", "--supervise")
        place.kill("working")
        driver.until_said("was killed by SIGKILL")
        place.touch("go")
        assert driver.finish() == 0, driver.output
        assert not psutil.Process().children() or driver.process.poll() == 0


class TestKey:
    def test_runs_once_only_and_shows_the_run_that_is_there(self, place: CountingPlace) -> None:
        place.write(FAILING)
        place.touch("mended")
        assert "returned 7" in place.done("run", "flows.py", "--key", "day 1")
        run = get_run("last")
        told = place.done("run", "flows.py", "--key", "day 1")
        assert f"key day 1: {run.id[:8]} of main has it, so nothing was run" in told
        assert "returned 7" in told
        assert place.executions == {"work[0]": 1}
        assert "other parameters" not in told
        told = place.done("run", "flows.py", "--key", "day 1", "--param", "n=8")
        assert "has it, so nothing was run, with other parameters: n=7, not 8" in told
        assert "returned 7" in told
        assert "other" not in place.done("run", "flows.py", "--key", "day 1", "--param", "n=7")
        told = place.done("run", "flows.py", "--key", "day 1", "--json")
        assert json.loads(told[told.index("{") :])["key"] == "day 1"
        place.done("run", "flows.py", "--key", "day 2")
        assert place.executions == {"work[0]": 2}

    def test_the_exit_code_is_that_of_its_state(self, place: CountingPlace) -> None:
        place.write(FAILING)
        assert place.raysched("run", "flows.py", "--key", "k").process.returncode == 1
        shown = place.raysched("run", "flows.py", "--key", "k")
        assert shown.process.returncode == 1, shown.output
        assert f"raysched resume {get_run('last').id[:8]}" in shown.output
        place.touch("mended")
        place.done("resume", "last")
        assert "returned 7" in place.done("run", "flows.py", "--key", "k")
        assert place.executions == {"work[0]": 2}

    def test_of_several_at_once_one_runs(self, place: CountingPlace) -> None:
        place.write(SLOW)
        racers = [place.run("flows.py", "--key", "k") for _ in range(4)]
        until(lambda: sum(each.process.poll() is not None for each in racers) == 3, "three ends")
        assert len(get_runs()) == 1
        place.touch("go")
        assert sorted(each.finish() for each in racers) == [0, 1, 1, 1]

    def test_a_supervised_one_goes_on_with_a_run_that_was_lost(self, place: CountingPlace) -> None:
        place.write(DYING)
        place.raysched("run", "flows.py", "--key", "k")
        assert get_run("last").lost
        told = place.done("run", "flows.py", "--key", "k", "--supervise")
        assert "returned 6" in told
        assert len(get_runs()) == 1
