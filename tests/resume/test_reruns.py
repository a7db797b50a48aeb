"""`raysched rerun`: a new run that reuses what an earlier one has left."""

import json

from raysched import get_run
from raysched.model.states import StateType
from resume.places import CountingPlace

FLOW = """
from common import *

@task
def load(n):
    ran()
    return n

@task
def parse(n):
    ran()
    if n == 3 and not is_there("mended"):
        raise ValueError("cannot parse 3")
    return 2 * n

@task
def settle(factor):
    ran()
    return factor

@task
def total(numbers, factor):
    ran()
    return sum(numbers) * factor

@flow
def nightly(n: int = 5, factor: int = 1):
    return total(parse.map(load.map(range(n))), settle(factor))
"""

PLACES = """
from common import *

@task(idempotent=False)
def pay(n):
    ran()
    if not is_there("mended"):
        raise ValueError("no money")
    return n

@flow
def paying():
    return pay(1)
"""


def failed_run(place: CountingPlace) -> str:
    """Let the flow fail; return its run's id."""
    place.write(FLOW)
    assert place.raysched("run", "flows.py").process.returncode == 1
    return get_run("last").id


def completed_run(place: CountingPlace) -> str:
    """Let the flow complete; return its run's id."""
    place.touch("mended")
    place.write(FLOW)
    place.done("run", "flows.py")
    return get_run("last").id


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of a table by task."""
    return {row[0]: row[1:] for row in map(str.split, text.splitlines()) if row}


class TestFailed:
    def test_runs_what_did_not_complete_as_a_new_run(self, place: CountingPlace) -> None:
        earlier = failed_run(place)
        before = place.executions
        place.touch("mended")
        told = place.done("rerun", "last", "--failed")
        assert "returned 20" in told
        assert place.executions - before == {"parse[3]": 1, "total[0]": 1}
        run = get_run("last")
        assert (run.rerun_of, run.run_count) == (earlier, 1)
        assert run.counts == {StateType.COMPLETED: 2, StateType.CACHED: 10}
        assert get_run(earlier).state.type is StateType.FAILED
        assert "10 cached" in place.done("runs")
        assert f"results of {earlier}" in place.done("show", "last")

    def test_what_was_reused_can_be_reused_again(self, place: CountingPlace) -> None:
        failed_run(place)
        place.touch("mended")
        place.done("rerun", "last")
        before = place.executions
        assert "returned 20" in place.done("rerun", "last", "--from", "total")
        assert place.executions - before == {"total[0]": 1}
        assert get_run("last").counts == {StateType.COMPLETED: 1, StateType.CACHED: 11}

    def test_of_a_run_that_completed_needs_to_be_told_what(self, place: CountingPlace) -> None:
        completed_run(place)
        refused = place.raysched("rerun", "last")
        assert refused.process.returncode == 2, refused.output
        assert "say by --from TASK or --param" in refused.output.replace("\n", " ")


class TestFrom:
    def test_a_task_runs_with_all_that_needs_it(self, place: CountingPlace) -> None:
        completed_run(place)
        before = place.executions
        place.done("rerun", "last", "--from", "parse")
        expected = dict.fromkeys([*(f"parse[{n}]" for n in range(5)), "total[0]"], 1)
        assert place.executions - before == expected

    def test_one_task_run_with_all_that_needs_it(self, place: CountingPlace) -> None:
        completed_run(place)
        before = place.executions
        place.done("rerun", "last", "--from", "load[2]")
        assert place.executions - before == {"load[2]": 1, "parse[2]": 1, "total[0]": 1}

    def test_what_the_run_does_not_have_is_refused(self, place: CountingPlace) -> None:
        completed_run(place)
        refused = place.raysched("rerun", "last", "--from", "pars")
        assert refused.process.returncode == 2, refused.output
        assert "has no task 'pars'" in refused.output


class TestParameters:
    def test_only_what_depends_on_it_runs(self, place: CountingPlace) -> None:
        completed_run(place)
        before = place.executions
        assert "returned 60" in place.done("rerun", "last", "--param", "factor=3")
        assert place.executions - before == {"settle[0]": 1, "total[0]": 1}
        assert get_run("last").parameters == {"n": 5, "factor": 3}

    def test_a_longer_map_keeps_what_it_had(self, place: CountingPlace) -> None:
        completed_run(place)
        before = place.executions
        assert "returned 30" in place.done("rerun", "last", "--param", "n=6")
        assert place.executions - before == {"load[5]": 1, "parse[5]": 1, "total[0]": 1}

    def test_are_validated(self, place: CountingPlace) -> None:
        completed_run(place)
        refused = place.raysched("rerun", "last", "--param", "n=many")
        assert refused.process.returncode == 2, refused.output
        assert "parameter 'n'" in refused.output


class TestDryRun:
    def test_tells_what_would_run_and_then_just_that_runs(self, place: CountingPlace) -> None:
        completed_run(place)
        before = place.executions
        told = place.done("rerun", "last", "--from", "load[2]", "--dry-run")
        assert place.executions == before
        assert rows(told)["load"] == ["4", "1", "load[2]"]
        assert rows(told)["parse"] == ["4", "1", "parse[2]"]
        assert rows(told)["settle"] == ["1"]
        assert rows(told)["total"] == ["1", "total[0]"]

    def test_as_json(self, place: CountingPlace) -> None:
        completed_run(place)
        told = place.done("rerun", "last", "--param", "n=6", "--dry-run", "--json")
        plan = json.loads(told)["rerun"]
        runs = {task["task"]: (task["reused"], task["runs"]) for task in plan["tasks"]}
        assert runs == {
            "load": (5, ["load[5]"]),
            "parse": (5, ["parse[5]"]),
            "settle": (1, []),
            "total": (0, ["total[0]"]),
        }
        assert plan["continues"]

    def test_goes_through_dynamic_maps_and_subflows_as_far_as_it_is_answered(
        self, place: CountingPlace
    ) -> None:
        place.write(
            """
from common import *

@task
def listing():
    ran()
    return [1, 2, 3]

@task
def load(n):
    ran()
    return n

@flow
def part(n):
    return load(n)

@task
def total(numbers):
    ran()
    return sum(numbers)

@flow
def main():
    found = listing()
    loaded = load.map(found).result()
    return total([*loaded, part(10)])
"""
        )
        place.done("run", "flows.py:main")
        before = place.executions
        told = place.done("rerun", "last", "--from", "total", "--dry-run")
        assert rows(told)["listing"] == ["1"]
        assert rows(told)["load"] == ["3"]
        assert rows(told)["total"] == ["1", "total[0]"]
        assert "goes on by what comes out" in told
        assert place.executions == before


class TestWhatMustNotRunTwice:
    def test_is_said_and_asked_for(self, place: CountingPlace) -> None:
        place.write(PLACES)
        place.raysched("run", "flows.py")
        place.touch("mended")
        assert "pay[0] may have run in" in place.done("rerun", "last", "--dry-run")
        refused = place.raysched("rerun", get_run("last").id)
        assert refused.process.returncode != 0, refused.output
        assert "pay[0] may have run already" in refused.output
        assert place.executions["pay[0]"] == 1
        earlier = get_run("last").rerun_of
        assert "returned 1" in place.done("rerun", earlier, "--yes")
        assert place.executions["pay[0]"] == 2


def test_from_python(place: CountingPlace) -> None:
    earlier = completed_run(place)
    place.write(
        "from flows import nightly\n"
        f"print(nightly.rerun({earlier!r}, again='total', parameters={{'factor': 2}}))\n",
        "again.py",
    )
    before = place.executions
    driver = place.start("again.py")
    assert driver.finish() == 0, driver.output
    assert driver.output.splitlines()[-1] == "40"
    assert place.executions - before == {"settle[0]": 1, "total[0]": 1}
