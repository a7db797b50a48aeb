"""Both backends, for the shared suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backends.harness import Harness

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ray_harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    from raysched.backends.ray.backend import RayBackend

    request.getfixturevalue("local_ray")
    backend = RayBackend(code_path=HERE.parent)
    yield Harness(backend)
    backend.stop()


@pytest.fixture
def inline_harness() -> Iterator[Harness]:
    from raysched.backends.inline import InlineBackend

    backend = InlineBackend()
    yield Harness(backend)
    backend.stop()


@pytest.fixture(params=["inline", "ray"])
def harness(request: pytest.FixtureRequest) -> Harness:
    """A started backend of each kind."""
    found: Harness = request.getfixturevalue(f"{request.param}_harness")
    return found
