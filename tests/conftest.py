"""What all tests share: one local Ray and one PostgreSQL for the session."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from servers import server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server

RAY_CPUS = 4
"""Logical ones: the tests overlap units, whatever the machine has."""

# How long a case takes says how busy the machine is.
settings.register_profile("raysched", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("raysched")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of the backend for the tests of the face and of the examples."""
    parser.addoption("--backend", choices=["inline", "ray"], default="inline")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of this session on this machine, which backends find initialised and use."""
    import ray

    # Ray's workers have the lowest priority by default, and a busy machine would starve them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Tests are modules that pytest has put on its own path only.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    _start_ray()
    yield
    ray.shutdown()


def _start_ray() -> None:
    """Start it, if need be again: it gives up after 30 s, however busy the machine is (2.60)."""
    import ray

    from raysched.backends.ray.connection import connect

    for last in (False, False, True):
        try:
            connect("local", {"num_cpus": RAY_CPUS, "log_to_driver": False}, None)
        except Exception:
            ray.shutdown()
            if last:
                raise
        else:
            return


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL of this session, which no test stops."""
    with server() as running:
        yield running


@pytest.fixture
def postgresql_url(postgresql: Server) -> str:
    """The URL of an empty schema in it."""
    return postgresql.schema()
