"""What completed and runs again all the same: what was not kept, setups, what was undone."""

from raysched import get_run
from raysched.model.states import StateType
from resume.places import CountingPlace

NOT_KEPT = """
from common import *

@task(persist_result=False)
def load(n):
    ran()
    return bytes(n)

@task
def size(data):
    ran()
    return len(data)

@task
def check(sizes):
    ran()
    if not is_there("mended"):
        raise ValueError("not yet")
    return sum(sizes)

@flow
def main(needed: bool = False):
    loaded = load.map([10, 20, 30])
    sizes = size.map(loaded)
    checked = check(sizes)
    return checked + sum(map(len, loaded.result())) if is_there("needed") else checked
"""


class TestResultsThatWereNotKept:
    def test_are_not_made_again_unless_needed(self, place: CountingPlace) -> None:
        place.write(NOT_KEPT)
        place.raysched("run", "flows.py")
        before = place.executions
        planned = place.done("resume", "last", "--dry-run")
        assert "load" in planned
        place.touch("mended")
        told = place.done("resume", "last")
        assert "3 will be computed again if needed" in told
        assert place.executions - before == {"check[0]": 1}

    def test_are_made_again_when_needed(self, place: CountingPlace) -> None:
        place.write(NOT_KEPT)
        place.raysched("run", "flows.py")
        before = place.executions
        place.touch("mended")
        place.touch("needed")
        told = place.done("resume", "last")
        assert "returned 120" in told
        assert place.executions - before == {
            "check[0]": 1,
            "load[0]": 1,
            "load[1]": 1,
            "load[2]": 1,
        }
        assert get_run("last").counts == {StateType.COMPLETED: 7}


SETUPS = """
from common import *

@task(setup=True)
def connect():
    ran()
    return "connection"

def undo(value):
    ran("undone")

@task(compensate=undo)
def reserve(connection):
    ran()
    return "reserved"

@task
def load(connection):
    ran()
    return 1

@task
def ship(reserved, loaded):
    ran()
    if not is_there("mended"):
        raise ValueError("no ship")
    return loaded

@task(teardown=True)
def close(connection, shipped):
    ran()

@flow
def main():
    connection = connect.submit()
    shipped = ship.submit(reserve.submit(connection), load.submit(connection))
    close.submit(connection, shipped)
    return shipped.result()
"""


def test_setups_run_again_and_what_was_rolled_back_is_not_reused(place: CountingPlace) -> None:
    place.write(SETUPS)
    place.raysched("run", "flows.py")
    before = place.executions
    assert before["undone"] == 1
    place.touch("mended")
    told = place.done("resume", "last")
    assert "1 completed run again (setup)" in told
    assert place.executions - before == {
        "connect[0]": 1,
        "reserve[0]": 1,
        "ship[0]": 1,
        "close[0]": 1,
    }
