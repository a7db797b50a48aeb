"""`raysched resume` as people use it: mend what failed, and go on."""

import signal

import pytest

from faults.drivers import until
from raysched import get_run
from raysched.model.states import StateType
from resume.mending import BROKEN, MENDED
from resume.places import CountingPlace

RETOUCHED = MENDED.replace("return n\n", "return n + 0\n")


def test_the_main_case_mend_the_code_and_go_on(any_place: CountingPlace) -> None:
    place = any_place
    place.write(BROKEN)
    failed = place.raysched("run", "flows.py")
    run = get_run("last")
    assert failed.process.returncode == 1, failed.output
    assert f"go on raysched resume {run.id[:8]}" in failed.output
    before = place.executions

    place.write(MENDED)
    told = place.done("resume", "last")

    words = f"resuming nightly {run.id[:8]}: 11 completed are reused, 1 failed and 1 not run go on"
    assert words in told
    assert f"nightly {run.id[:8]} resumed on " in told
    assert "returned 624" in told
    assert "11 of 11 recorded results were reused" in told
    assert place.executions - before == {"parse[3]": 1, "total[0]": 1}
    run.refresh()
    assert (run.state.type, run.run_count, run.parameters) == (StateType.COMPLETED, 2, {"n": 6})
    assert run["parse"][3].attempts == 2


def test_from_elsewhere_and_of_a_script_that_python_ran(place: CountingPlace) -> None:
    place.write(BROKEN)
    assert place.start("flows.py").finish() == 1
    place.write(MENDED)
    elsewhere = place.path / "elsewhere"
    elsewhere.mkdir()
    place.path = elsewhere
    told = place.done("resume", "last")
    assert "returned 624" in told


def test_where_the_flow_has_moved_the_target_is_told(place: CountingPlace) -> None:
    place.write(BROKEN)
    place.raysched("run", "flows.py")
    (place.path / "flows.py").unlink()
    place.write(MENDED, "flows_of_ours.py")
    assert "there is no file" in place.raysched("resume", "last").output
    told = place.done("resume", "last", "flows_of_ours.py")
    # A task counts by the name of its file, too.
    assert "returned 624" in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_ctrl_c_and_sigterm(place: CountingPlace, number: signal.Signals) -> None:
    source = BROKEN.replace(
        'raise ValueError("cannot parse 3")',
        "mark('there'); wait_for('mended')",
    )
    place.write(source)
    driver = place.run("flows.py")
    place.until_marked("there")
    driver.process.send_signal(number)
    assert driver.finish() == 1, driver.output
    run = get_run("last")
    assert run.state.type is StateType.CANCELLED
    assert "raysched resume" in driver.output
    completed, before = place.completed(), place.executions
    assert completed
    place.touch("mended")
    place.done("resume", "last")
    assert not completed & (place.executions - before).keys()
    assert get_run("last").state.type is StateType.COMPLETED


def test_a_subflow_that_failed_goes_on_and_the_others_are_answered(place: CountingPlace) -> None:
    place.write(
        """
from common import *

@task
def load(n):
    ran(f"load-{n}")
    return n

@flow
def part(n):
    loaded = load(n)
    if n == 2 and not is_there("mended"):
        raise ValueError("not yet")
    return loaded + load(10 + n)

@flow
def main():
    return [part(n) for n in range(4)]
"""
    )
    place.raysched("run", "flows.py:main")
    before = place.executions
    place.touch("mended")
    told = place.done("resume", "last")
    assert "subflows: 2 completed and 1 failed" in told
    assert "returned [10, 12, 14, 16]" in told
    assert place.executions - before == {"load-12": 1, "load-3": 1, "load-13": 1}
    run = get_run("last")
    assert sorted(child.run_count for child in run.children) == [1, 1, 1, 2]


def test_a_retry_that_was_waited_for_is_made_at_once(place: CountingPlace) -> None:
    place.write(
        """
from common import *

@task(retries=1, retry_delay_seconds=3600)
def load(n):
    ran()
    if n == 1 and once("tried"):
        raise ConnectionError("no")
    return n

@flow
def main():
    return sum(load.map(range(3)).result())
"""
    )
    driver = place.run("flows.py")
    until((place.path / "tried").exists, "an attempt")
    until(lambda: place.states().get("load[1]") == "AWAITING_RETRY", "load[1] AWAITING_RETRY")
    driver.process.kill()
    driver.finish()
    told = place.done("resume", "last")
    assert "returned 3" in told
    assert place.executions == {"load[0]": 1, "load[1]": 2, "load[2]": 1}


def test_classes_of_the_script_are_read_again(place: CountingPlace) -> None:
    place.write(
        """
from dataclasses import dataclass

from common import *

@dataclass
class Box:
    n: int

@task
def load(n):
    ran()
    return Box(n)

@task
def total(boxes):
    ran()
    if not is_there("mended"):
        raise ValueError("not yet")
    return sum(box.n for box in boxes)

@flow
def main(first: Box):
    loaded = load.map([1, 2]).result()
    return total([first, *loaded])

if __name__ == "__main__":
    main(Box(10))
"""
    )
    assert place.start("flows.py").finish() == 1
    before = place.executions
    place.touch("mended")
    assert "returned 13" in place.done("resume", "last")
    assert place.executions - before == {"total[0]": 1}


class TestChangedCode:
    def test_of_what_completed_is_reused_and_said(self, place: CountingPlace) -> None:
        place.write(BROKEN)
        place.raysched("run", "flows.py")
        before = place.executions
        place.write(RETOUCHED)
        told = place.done("resume", "last")
        assert "load: 6 results were made by code that has changed since" in told
        assert "--rerun-changed runs them again" in told
        # What parse completed was made by code that has been mended since.
        assert "parse: 5 results were made by code that has changed since" in told
        assert place.executions - before == {"parse[3]": 1, "total[0]": 1}

    def test_of_what_completed_runs_again_if_asked(self, place: CountingPlace) -> None:
        place.write(BROKEN)
        place.raysched("run", "flows.py")
        before = place.executions
        place.write(RETOUCHED)
        told = place.done("resume", "last", "--rerun-changed")
        assert "returned 624" in told
        again = place.executions - before
        assert again == dict.fromkeys(
            [*(f"load[{n}]" for n in range(6)), *(f"parse[{n}]" for n in range(6)), "total[0]"], 1
        )


class TestDiverging:
    def test_what_nobody_calls_again_is_told(self, place: CountingPlace) -> None:
        place.write(BROKEN)
        place.raysched("run", "flows.py")
        before = place.executions
        place.write(MENDED.replace("load.map(range(n))", "load.map(range(100, 100 + n))"))
        told = place.done("resume", "last")
        assert "load[0]" in told
        assert "not called again" in told
        assert (place.executions - before).total() == 13
        assert get_run("last").state.type is StateType.COMPLETED


class TestOneOwner:
    def test_of_two_resumes_at_once_one_is_told_who_has_it(self, place: CountingPlace) -> None:
        place.write(BROKEN)
        place.raysched("run", "flows.py")
        place.write(MENDED.replace("return 600", "wait_for('go'); return 600"))
        first = place.start("-m", "raysched", "resume", "last")
        until(lambda: place.executions["parse[3]"] == 2, "parse[3]")
        second = place.raysched("resume", "last")
        assert second.process.returncode == 1, second.output
        run = get_run("last").id[:8]
        assert f"run {run} of flow 'nightly' goes on in process {first.process.pid}" in (
            second.output.replace("\n", " ")
        )
        assert f"raysched cancel {run}" in second.output
        place.touch("go")
        assert first.finish() == 0, first.output
        assert place.executions["parse[3]"] == 2

    def test_a_race_of_many_has_one_winner(self, place: CountingPlace) -> None:
        place.write(BROKEN)
        place.raysched("run", "flows.py")
        place.write(MENDED.replace("return 600", "wait_for('go'); return 600"))
        racers = [place.start("-m", "raysched", "resume", "last") for _ in range(4)]
        until(lambda: sum(each.process.poll() is not None for each in racers) == 3)
        place.touch("go")
        codes = sorted(each.finish() for each in racers)
        assert codes == [0, 1, 1, 1]
        assert place.executions["parse[3]"] == 2


class TestRefusals:
    def test_a_run_that_completed(self, place: CountingPlace) -> None:
        place.write(MENDED)
        place.done("run", "flows.py")
        refused = place.raysched("resume", "last")
        assert refused.process.returncode == 2, refused.output
        assert "is COMPLETED: nothing to go on with" in refused.output
        assert "raysched rerun" in refused.output

    def test_parameters_that_were_not_kept(self, place: CountingPlace) -> None:
        place.write(
            BROKEN.replace("n: int = 6", "data").replace("range(n)", "range(6)")
            + "    nightly(b'x' * 2_000_000)\n".replace("    nightly()\n", "")
        )
        source = BROKEN.replace("n: int = 6", "data").replace("range(n)", "range(6)")
        place.write(source.replace("    nightly()", "    nightly(b'x' * 2_000_000)"))
        assert place.start("flows.py").finish() == 1
        refused = place.raysched("resume", "last")
        assert refused.process.returncode == 2, refused.output
        assert "the parameters of run" in refused.output
        assert "larger than 1 MiB" in refused.output

    def test_parameters_that_do_not_fit_any_more(self, place: CountingPlace) -> None:
        place.write(BROKEN)
        place.raysched("run", "flows.py")
        place.write(MENDED.replace("n: int = 6", "m: int"))
        refused = place.raysched("resume", "last")
        assert refused.process.returncode == 2, refused.output
        assert "takes no 'n'" in refused.output

    def test_another_flows_run(self, place: CountingPlace) -> None:
        place.write(BROKEN)
        place.raysched("run", "flows.py")
        place.write(BROKEN.replace("nightly", "weekly"), "others.py")
        refused = place.raysched("resume", "last", "others.py")
        assert refused.process.returncode == 2, refused.output
        assert "is of flow 'nightly'" in refused.output
        assert "'weekly'" in refused.output

    def test_a_subflows_run(self, place: CountingPlace) -> None:
        source = BROKEN + "\n@flow\ndef outer():\n    return nightly()\n"
        place.write(source)
        place.raysched("run", "flows.py:outer")
        (child,) = get_run("last").children
        refused = place.raysched("resume", child.id)
        assert refused.process.returncode == 2, refused.output
        assert f"resume the run that called it, {get_run('last').id[:8]}" in refused.output


SIDE_EFFECTS = """
from common import *

@task(idempotent=False)
def pay(n):
    ran()
    mark("paying")
    wait_for("paid")
    return n

@flow
def paying():
    return pay(1)
"""


HALF_A_MAP = """
from common import *

@task
def step(n):
    return n + 1

@task(idempotent=False)
def pay(n):
    ran()
    if not n:
        raise ValueError("no such account")
    return n

@flow
def paying():
    last = 0
    for _ in range(20):
        last = step.submit(last)
    pays = pay.map([0, last])
    pays[0].wait()
    if once("killed"):
        die()
    return pays.result()
"""


class TestWhatMustNotRunTwice:
    def test_is_asked_for(self, place: CountingPlace) -> None:
        place.write(SIDE_EFFECTS)
        driver = place.run("flows.py")
        place.until_marked("paying")
        driver.process.kill()
        driver.finish()
        place.touch("paid")
        refused = place.raysched("resume", "last")
        assert refused.process.returncode != 0, refused.output
        assert "pay[0] may have run already (CRASHED)" in refused.output
        assert "--yes" in refused.output
        assert "resuming" not in refused.output
        assert place.executions["pay[0]"] == 1
        run = get_run("last")
        assert (run.lost, run.run_count, run.state.type) == (True, 1, StateType.CRASHED)
        assert "returned 1" in place.done("resume", "last", "--yes")
        assert place.executions["pay[0]"] == 2

    def test_leaves_nothing_open_where_a_map_is_refused_half_way(
        self, place: CountingPlace
    ) -> None:
        place.write(HALF_A_MAP)
        place.raysched("run", "flows.py")
        run = get_run("last")
        assert run["pay"][1].state.type is StateType.SCHEDULED
        refused = place.raysched("resume", "last")
        assert "NotResumable: pay[0] may have run already (FAILED)" in refused.output
        assert f"go on raysched resume {run.id[:8]} --yes" in refused.output
        assert "look whether pay[0] (idempotent=False) has had its effect" in refused.output
        run.refresh()
        assert run.state.is_failed()
        assert {each.state.type.is_terminal for each in run.task_runs()} == {True}
        assert place.executions == {"pay[0]": 1}
