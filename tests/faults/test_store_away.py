"""The database locked, or on a full disk, in the middle of a run."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from faults.drivers import Driver, Place

TWO_STEPS = """
from common import *

@flow
def two_steps():
    first = double.submit(1).result()
    mark("first")
    wait_for("go")
    return double.submit(first).result()

@flow
def many():
    mark("first")
    wait_for("go")
    return len(filled.map(range(300)).result())

@task
def filled(number):
    return bytes(4000)
"""

BACK = "nothing goes on until it is back"


def locked(place: Place) -> sqlite3.Connection:
    connection = sqlite3.connect(place.path / "home" / "raysched.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def begun(place: Place, target: str = "flows.py:two_steps") -> Driver:
    place.write(TWO_STEPS)
    driver = place.run(target)
    place.until_marked("first")
    return driver


def check_given_up(place: Place, driver: Driver, says: str) -> None:
    assert driver.finish() == 1, driver.output
    assert "Traceback" not in driver.output
    assert driver.output.count("error: ") == 1
    assert says in driver.output
    (run,) = place.look("runs")
    assert (run["state"], run["message"]) == ("CRASHED", "driver lost")
    assert f"go on with `raysched resume {run['id'][:8]}`" in driver.output


class TestLocked:
    def test_for_a_while_is_said_and_survived(self, ray_place: Place) -> None:
        driver = begun(ray_place)
        with closing(locked(ray_place)):
            (ray_place.path / "go").touch()
            driver.until_said("has locked it for more than 5 s", BACK)
        assert driver.finish() == 0, driver.output
        assert driver.output.count(BACK) == 1
        assert driver.output.count("the database is back after") == 1
        assert set(ray_place.states().values()) == {"COMPLETED"}

    def test_for_longer_than_the_patience(self, place: Place) -> None:
        place.environment["RAYSCHED_STORE_PATIENCE_SECONDS"] = "0.1"
        driver = begun(place)
        with closing(locked(place)):
            (place.path / "go").touch()
            driver.finish()
        check_given_up(place, driver, "has locked it for more than 5 s")
        assert place.states() == {"double[0]": "COMPLETED"}
        resumed = place.start("-m", "raysched", "resume", "last")
        assert resumed.finish() == 0, resumed.output
        assert place.states() == {"double[0]": "COMPLETED", "double[1]": "COMPLETED"}

    def test_the_second_signal_does_not_wait_for_it(self, place: Place) -> None:
        driver = begun(place)
        with closing(locked(place)):
            (place.path / "go").touch()
            driver.until_said(BACK)
            # Two of one kind could arrive as one.
            driver.signal_group(signal.SIGINT)
            driver.signal_group(signal.SIGTERM)
            assert driver.finish() != 0, driver.output
        assert "Traceback" not in driver.output
        assert place.look("runs")[0]["state"] == "CRASHED"


@pytest.fixture
def full_place(place: Place) -> Iterator[Place]:
    """A place with its database on a disk of 1 MiB."""
    home = place.path / "home"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, stderr=-3).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield place
    for driver in place.drivers:
        driver.close()
    subprocess.run(["umount", str(home)], check=True)


class TestFullDisk:
    def test_is_given_up(self, full_place: Place) -> None:
        full_place.environment["RAYSCHED_STORE_PATIENCE_SECONDS"] = "0.5"
        driver = begun(full_place, "flows.py:many")
        (full_place.path / "go").touch()
        check_given_up(full_place, driver, "its disk is full; free some space")

    def test_goes_on_when_there_is_space_again(self, full_place: Place) -> None:
        filler = full_place.path / "home" / "filler"
        driver = begun(full_place)
        # Unbuffered: it writes as much as there is room for.
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        (full_place.path / "go").touch()
        driver.until_said("its disk is full", BACK)
        filler.unlink()
        assert driver.finish() == 0, driver.output
