"""What all tests share: one local Ray for the session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

RAY_CPUS = 4
"""Logical ones: the tests overlap units, whatever the machine has."""


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of this session on this machine, which backends find initialised and use."""
    import ray

    from raysched.backends.ray.connection import connect

    # Ray's workers have the lowest priority by default, and a busy machine would starve them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    connect("local", {"num_cpus": RAY_CPUS, "log_to_driver": False}, None)
    yield
    ray.shutdown()
