"""A SQLite file held by another process for long, read-only, older or newer, under real drivers."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from faults.drivers import Driver, Place
from raysched.store import schema

FLOWS = """
from common import *

@flow
def two_steps():
    first = double.submit(1).result()
    mark("first")
    wait_for("go")
    return double.submit(first).result()

@flow
def one_step():
    double(1)

@flow
def forking():
    double(1)
    child = os.fork()
    if not child:
        raise SystemExit
    os.waitpid(child, 0)
    mark("forked")
    wait_for("go")
    double(2)
"""

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""

HELD_SECONDS = 12.0
"""More than twice as long as a statement waits by itself."""


@pytest.fixture
def place_with_flows(place: Place) -> Place:
    """A place for inline drivers."""
    place.write(FLOWS)
    return place


def database(place: Place) -> Path:
    return place.path / "home" / "raysched.db"


def check_refused(driver: Driver, *says: str) -> None:
    """It ends at once, with one message that names the path and what to do."""
    assert driver.finish() == 1, driver.output
    assert "Traceback" not in driver.output
    assert driver.output.count("error: ") == 1
    for text in says:
        assert text in driver.output


def test_held_by_another_process_for_long(place_with_flows: Place) -> None:
    place = place_with_flows
    driver = place.run("flows.py:two_steps")
    place.until_marked("first")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, database(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        (place.path / "go").touch()
        time.sleep(HELD_SECONDS)
        assert driver.process.poll() is None
        # Who only looks is not held up.
        assert place.look("runs")[0]["state"] == "RUNNING"
        assert place.states() == {"double[0]": "COMPLETED"}
        holder.communicate()
    assert driver.finish() == 0, driver.output
    named = f"{database(place)}: process {holder.pid} ("
    assert named in driver.output
    assert driver.output.count("nothing goes on until it is back") == 1
    assert driver.output.count("the database is back after") == 1
    assert place.states() == {"double[0]": "COMPLETED", "double[1]": "COMPLETED"}
    assert any("the database was away for" in text for text in place.messages())


def test_a_fork_of_the_driver_changes_nothing(place_with_flows: Place) -> None:
    """It has the flow function, the connections and the locks of the other one in its memory."""
    place = place_with_flows
    driver = place.run("flows.py:forking")
    place.until_marked("forked")
    assert "this process was forked inside a flow" in driver.output
    assert place.look("runs")[0]["state"] == "RUNNING"
    (place.path / "go").touch()
    assert driver.finish() == 0, driver.output
    assert place.states() == {"double[0]": "COMPLETED", "double[1]": "COMPLETED"}


@contextmanager
def mounted(directory: Path) -> Iterator[None]:
    """A file system of its own."""
    directory.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, stderr=-3).returncode != 0:
        pytest.skip("only root may mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_disk_that_is_read_only(place_with_flows: Place) -> None:
    place, home = place_with_flows, place_with_flows.path / "home"
    with mounted(home):
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        check_refused(place.run("flows.py:one_step"), str(database(place)), "RAYSCHED_HOME")
        subprocess.run(["mount", "-o", "remount,rw", str(home)], check=True)
        assert place.run("flows.py:one_step").finish() == 0
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        check_refused(place.run("flows.py:one_step"), str(database(place)), "RAYSCHED_HOME")
        # Looking needs no right to write.
        assert [run["state"] for run in place.look("runs")] == ["COMPLETED"]
        subprocess.run(["mount", "-o", "remount,rw", str(home)], check=True)
        assert place.run("flows.py:one_step").finish() == 0


def test_a_newer_database_is_left_alone(place_with_flows: Place) -> None:
    place = place_with_flows
    assert place.run("flows.py:one_step").finish() == 0
    with closing(sqlite3.connect(database(place))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        (before,) = connection.execute("SELECT count(*) FROM flow_run").fetchone()
    driver = place.run("flows.py:one_step")
    check_refused(driver, str(database(place)), "newer than", "upgrade raysched")
    with closing(sqlite3.connect(database(place))) as connection:
        assert connection.execute("SELECT count(*) FROM flow_run").fetchone() == (before,)


OLD_RUN = (
    "INSERT INTO driver (number, id, host, pid, started) VALUES (1, '00000000000000aa', 'a', 1, 1)",
    (
        "INSERT INTO flow_run (number, id, flow, name, state, message, started, ended, parameters, "
        "tags, parent, parent_key, target, backend, versions, epoch, attempts, driver, "
        "error_message, error_traceback, error_class, error_kind) VALUES (1, 'abc', 'nightly', "
        "'owl', 2, '', 1, 0, '{}', '[]', '', '', '', '', '{}', 1, 1, 1, '', '', '', '')"
    ),
)
"""A run that the first raysched left open."""


@pytest.mark.parametrize("revision", [f"{number:04}" for number in range(1, int(schema.HEAD))])
def test_an_older_database_goes_on(revision: str, place_with_flows: Place) -> None:
    place = place_with_flows
    database(place).parent.mkdir()
    made = make_revision(database(place), revision)
    for statement in OLD_RUN:
        made.execute(statement)
    made.commit()
    made.close()
    assert place.run("flows.py:one_step").finish() == 0
    newest, old = place.look("runs")
    assert (newest["state"], newest["flow"]) == ("COMPLETED", "one_step")
    assert (old["state"], old["message"], old["flow"]) == ("CRASHED", "driver lost", "nightly")


def make_revision(path: Path, revision: str) -> sqlite3.Connection:
    """Make a database as an older raysched did."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        config.set_main_option("path_separator", "os")
        command.upgrade(config, revision)
    engine.dispose()
    return sqlite3.connect(path)
