"""What a resume would do, and the resumes of many runs and from Python."""

from raysched import get_run
from raysched.testing import FaultPoints
from resume.mending import BROKEN, MENDED
from resume.places import CountingPlace

PAYMENTS = """
from common import *

@task(idempotent=False)
def charge():
    raise ValueError("no such account")

@task(idempotent=False)
def note():
    pass

@task(idempotent=False)
def pay():
    die()

@flow
def billing():
    note()
    pay()

@flow
def paying():
    charge(return_state=True)
    billing()
"""


class TestDryRun:
    def test_tells_what_is_there_by_task(self, place: CountingPlace) -> None:
        place.write(BROKEN)
        place.raysched("run", "flows.py")
        before = place.executions
        told = place.done("resume", "last", "--dry-run")
        rows = {row[0]: row[1:] for row in map(str.split, told.splitlines()) if row}
        assert rows["load"] == ["6"]
        assert rows["parse"] == ["5", "1", "failed"]
        assert rows["total"] == ["1", "not", "run"]
        assert place.executions == before
        assert get_run("last").run_count == 1

    def test_as_json(self, place: CountingPlace) -> None:
        place.write(BROKEN)
        place.raysched("run", "flows.py")
        stock = {each["name"]: each for each in place.look("resume", "last", "--dry-run")["resume"]}
        assert stock["parse"] == {
            "name": "parse",
            "reused": 5,
            "recomputed_if_needed": 0,
            "not_kept_bytes": 0,
            "completed_run_again": {},
            "run": {"FAILED": 1},
        }

    def test_names_what_asks_for_a_yes_also_in_subflows(self, place: CountingPlace) -> None:
        place.write(PAYMENTS)
        place.raysched("run", "flows.py:paying")
        told = place.done("resume", "last", "--dry-run")
        assert "charge[0], billing/pay[0] may have run already, and must not run twice" in told
        assert "--yes" in told
        asked = place.look("resume", "last", "--dry-run")["may_have_run"]
        assert asked == [
            {"key": "charge[0]", "state": "FAILED"},
            {"key": "billing/pay[0]", "state": "CRASHED"},
        ]

    def test_names_nothing_where_nothing_asks_for_it(self, place: CountingPlace) -> None:
        place.write(BROKEN)
        place.raysched("run", "flows.py")
        assert "may have run" not in place.done("resume", "last", "--dry-run")


class TestAllLost:
    def test_goes_on_with_each_and_tells_which_failed(self, place: CountingPlace) -> None:
        place.write(MENDED)
        place.write(MENDED.replace("nightly", "weekly"), "weekly.py")
        place.write(BROKEN.replace("nightly", "daily"), "daily.py")
        for name in ("flows", "weekly", "daily"):
            faults = FaultPoints(place.path / name).kill("after commit", nth=2)
            (place.path / name).mkdir()
            place.broken(faults, "run", f"{name}.py")
        driver = place.raysched("resume", "--all-lost")
        assert driver.process.returncode == 1, driver.output
        assert "2 of 3 lost runs completed" in driver.output
        assert "No run is lost." in place.done("resume", "--all-lost")


def test_from_python_a_resume_returns_what_the_flow_does(place: CountingPlace) -> None:
    place.write(BROKEN)
    place.raysched("run", "flows.py")
    place.write(MENDED)
    place.write(
        "from flows import nightly\n"
        "state = nightly.resume('last', return_state=True)\n"
        "print(state, state.result())\n",
        "again.py",
    )
    driver = place.start("again.py")
    assert driver.finish() == 0, driver.output
    assert "624" in driver.output
