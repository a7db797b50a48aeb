"""PostgreSQL away, killed, and used by many drivers at once, in the middle of runs."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from faults.drivers import Driver, Place, until
from raysched.settings import settings
from raysched.store import open_store, postgresql
from servers import Server, server
from store.samples import resumed

STEADY = """
from common import *

@task
def step(number):
    return number + 1

@flow
def steady():
    with (HERE / "seen").open("a", buffering=1) as seen:
        number = 0
        while not (HERE / "enough").exists():
            number = step(number)
            seen.write(f"{number}\\n")
            mark("first")

@flow
def patient():
    first = double.submit(1).result()
    mark("first")
    wait_for("go")
    return double.submit(first).result()

@flow
def forking():
    double(1)
    child = os.fork()
    if not child:
        raise SystemExit
    os.waitpid(child, 0)
    mark("first")
    wait_for("go")
    double(2)

@flow
def many():
    wait_for("go")
    assert sum(step.map(range(2000)).result()) == 2001000
"""

AWAY, BACK = "nothing goes on until it is back", "the database is back after"

AWAY_SECONDS = 10.0
"""For so long the server is away: longer than any single try to reach it takes."""


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that tests may stop and kill, if they start it again."""
    with server() as running:
        yield running


@pytest.fixture
def stored(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Place], Place]]:
    """Has the drivers of a place, and who looks from here, use a schema of that server."""
    url = own_server.schema()

    def use(place: Place) -> Place:
        place.environment["RAYSCHED_DATABASE_URL"] = url
        monkeypatch.setenv("RAYSCHED_DATABASE_URL", url)
        settings.cache_clear()
        place.write(STEADY)
        return place

    yield use
    settings.cache_clear()


@pytest.fixture
def pg_place(place: Place, stored: Callable[[Place], Place]) -> Place:
    """A place for inline drivers with their runs in PostgreSQL."""
    return stored(place)


def seen(place: Place) -> int:
    """How many results the flow function of `steady` has seen."""
    return (place.path / "seen").read_text().count("\n")


def until_more(place: Place, number: int = 5) -> None:
    """Wait until the flow has seen some more."""
    before = seen(place)
    until(lambda: seen(place) >= before + number, "more results")


def until_told(driver: Driver, text: str, times: int) -> None:
    """Wait until a driver has said something so often."""
    until(lambda: driver.output.count(text) == times, text)


def begun(place: Place, target: str = "steady") -> Driver:
    driver = place.run(f"flows.py:{target}")
    place.until_marked("first")
    return driver


def check_completed(place: Place, driver: Driver) -> None:
    """End `steady`: what its flow function has seen is all there, and nothing else."""
    (place.path / "enough").touch()
    assert driver.finish() == 0, driver.output
    assert "Traceback" not in driver.output
    assert driver.output.count(AWAY) == driver.output.count(BACK)
    states = place.states()
    assert len(states) == seen(place)
    assert set(states.values()) == {"COMPLETED"}
    assert place.show()["state"] == "COMPLETED"


def test_sessions_that_are_ended_again_and_again(pg_place: Place, own_server: Server) -> None:
    driver = begun(pg_place)
    for _ in range(10):
        own_server.terminate_sessions()
        until_more(pg_place)
        assert pg_place.look("runs")[0]["state"] == "RUNNING"
    check_completed(pg_place, driver)


def test_a_server_that_is_away_for_ten_seconds_and_again(
    pg_place: Place, own_server: Server
) -> None:
    driver = begun(pg_place)
    for times, seconds in enumerate((AWAY_SECONDS, 0.0), start=1):
        own_server.stop()
        until_told(driver, AWAY, times)
        before = seen(pg_place)
        time.sleep(seconds)
        assert seen(pg_place) == before
        own_server.start()
        # Before its driver is back, which has nothing to fear.
        assert pg_place.look("runs")[0]["state"] == "RUNNING"
        until_told(driver, BACK, times)
        until_more(pg_place)
    check_completed(pg_place, driver)
    told = [text for text in pg_place.messages() if text.startswith("the database was away for")]
    assert len(told) == 2
    assert "the server cannot be reached or refuses to work" in told[0]


@pytest.mark.parametrize("on", ["place", "ray_place"])
def test_a_server_that_is_killed(
    on: str,
    request: pytest.FixtureRequest,
    stored: Callable[[Place], Place],
    own_server: Server,
) -> None:
    place = stored(request.getfixturevalue(on))
    driver = begun(place)
    for times in (1, 2):
        own_server.kill()
        until_told(driver, AWAY, times)
        own_server.start()
        until_more(place)
    check_completed(place, driver)


def test_a_driver_with_nothing_to_write_outlives_a_restart(
    pg_place: Place, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = begun(pg_place, "patient")
    own_server.stop()
    own_server.start()
    assert pg_place.look("runs")[0]["state"] == "RUNNING"
    # From here on only a living driver can make it look so.
    monkeypatch.setattr(postgresql, "RESTART_SECONDS", 0.0)
    until(lambda: pg_place.look("runs")[0]["state"] == "RUNNING", "the driver's session")
    driver.process.kill()
    until(lambda: pg_place.look("runs")[0]["message"] == "driver lost", "its end")


def test_a_server_that_is_away_for_too_long(pg_place: Place, own_server: Server) -> None:
    pg_place.environment["RAYSCHED_STORE_PATIENCE_SECONDS"] = "1"
    driver = begun(pg_place)
    own_server.stop()
    assert driver.finish() == 1, driver.output
    own_server.start()
    assert "Traceback" not in driver.output
    assert driver.output.count("error: ") == 1, driver.output
    (run,) = pg_place.look("runs")
    assert f"go on with `raysched resume {run['id'][:8]}`" in driver.output
    # At once, as its process was on this machine.
    assert run["message"] == "driver lost"
    states = pg_place.states()
    assert list(states.values()).count("COMPLETED") >= seen(pg_place)
    assert set(states.values()) <= {"COMPLETED", "CRASHED", "SCHEDULED"}
    (pg_place.path / "enough").touch()
    resumed = pg_place.start("-m", "raysched", "resume", run["id"])
    assert resumed.finish() == 0, resumed.output
    assert set(pg_place.states().values()) == {"COMPLETED"}


def test_a_supervised_run_goes_on_when_the_server_is_back(
    pg_place: Place, own_server: Server
) -> None:
    """However long that takes: the driver gives up, whoever starts it again does not."""
    pg_place.environment["RAYSCHED_STORE_PATIENCE_SECONDS"] = "0.5"
    supervisor = pg_place.run("flows.py:steady", "--supervise")
    pg_place.until_marked("first")
    own_server.stop()
    supervisor.until_said("go on with `raysched resume", "looking again in 2 s")
    before = seen(pg_place)
    own_server.start()
    # Those that were seen are answered at once, and are seen again.
    until(lambda: seen(pg_place) > 2 * before + 5, "more results")
    (pg_place.path / "enough").touch()
    assert supervisor.finish() == 0, supervisor.output
    assert set(pg_place.states().values()) == {"COMPLETED"}


def test_a_driver_whose_run_was_taken_over_meanwhile_stops(
    pg_place: Place, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = begun(pg_place, "patient")
    (run,) = pg_place.look("runs")
    os.kill(driver.process.pid, signal.SIGSTOP)
    own_server.terminate_sessions()
    monkeypatch.setattr(postgresql, "RESTART_SECONDS", 0.0)
    store = open_store(pg_place.environment["RAYSCHED_DATABASE_URL"])
    taken = store.take_over(run["id"], resumed)
    os.kill(driver.process.pid, signal.SIGCONT)
    (pg_place.path / "go").touch()
    assert driver.finish() == 1, driver.output
    assert "another process has taken this run over" in driver.output
    assert "Traceback" not in driver.output
    # The new owner has not been disturbed, and nothing of the old one came in.
    assert pg_place.look("runs")[0]["state"] == "RUNNING"
    assert pg_place.states() == {"double[0]": "COMPLETED"}
    assert taken.row.epoch == 2
    store.close()


def test_a_fork_of_the_driver_changes_nothing(
    pg_place: Place, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the flow function, the connections and the locks of the other one in its memory."""
    monkeypatch.setattr(postgresql, "RESTART_SECONDS", 0.0)
    driver = begun(pg_place, "forking")
    assert "this process was forked inside a flow" in driver.output
    assert pg_place.look("runs")[0]["state"] == "RUNNING"
    own_server.terminate_sessions()
    until(lambda: pg_place.look("runs")[0]["state"] == "RUNNING", "the driver's session")
    (pg_place.path / "go").touch()
    assert driver.finish() == 0, driver.output
    assert AWAY not in driver.output
    assert pg_place.states() == {"double[0]": "COMPLETED", "double[1]": "COMPLETED"}


def test_many_drivers_at_once(pg_place: Place) -> None:
    drivers = [pg_place.run("flows.py:many") for _ in range(8)]
    until(lambda: len(pg_place.look("runs")) == len(drivers), "all drivers")
    (pg_place.path / "go").touch()
    failed = [driver.output for driver in drivers if driver.finish() != 0]
    assert not failed, failed[0]
    assert not any(AWAY in driver.output for driver in drivers)
    runs = pg_place.look("runs")
    assert [run["state"] for run in runs] == ["COMPLETED"] * len(drivers)
    for run in runs:
        shown = pg_place.look("show", run["id"], "--state", "COMPLETED")
        assert shown["tasks"] == {"COMPLETED": 2000}
