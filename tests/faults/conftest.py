"""A directory for each test, and drivers in it on either backend."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from faults.drivers import Place
from raysched.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMON = '''
import os
import signal
import time
from pathlib import Path

from raysched import flow, get_run_logger, task


HERE = Path(__file__).parent


def mark(name):
    """Leave this process's id."""
    (HERE / f"{name}.new").write_text(str(os.getpid()))
    (HERE / f"{name}.new").rename(HERE / name)


def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.01)


@task
def double(number):
    return 2 * number


@task
def hang(number):
    get_run_logger().info("hanging %d", number)
    try:
        mark(f"hanging-{number}")
        time.sleep(600)
    finally:
        mark(f"cleaned-{number}")


@flow
def hanging():
    double.map(range(3)).wait()
    double.submit(hang.map(range(8))[0]).wait()
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A directory with `common.py`; drivers in it run inline, or on `ray`."""
    for name in [name for name in os.environ if name.startswith("RAYSCHED_")]:
        monkeypatch.delenv(name)
    settings.cache_clear()
    # Also for looking from this process.
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    place = Place(tmp_path, {"RAYSCHED_BACKEND": "inline"})
    place.write(COMMON, "common.py")
    yield place
    place.close()
    settings.cache_clear()


@pytest.fixture
def ray_place(place: Place, local_ray: None) -> Place:
    """The same; drivers in it use the Ray of this session."""
    del local_ray
    place.use_local_ray()
    return place


@pytest.fixture
def own_ray_place(place: Place) -> Place:
    """The same; each driver starts a Ray of its own, which a test may break."""
    place.environment |= {"RAYSCHED_BACKEND": "ray", "RAY_worker_niceness": "0"}
    return place


@pytest.fixture(params=["inline", "ray"])
def either_place(request: pytest.FixtureRequest) -> Place:
    """A place for drivers of each backend."""
    name = "place" if request.param == "inline" else "ray_place"
    found: Place = request.getfixturevalue(name)
    return found
