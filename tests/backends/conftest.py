"""Both backends, for the shared suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backends.harness import Harness
from raysched.settings import settings

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


@pytest.fixture(scope="module")
def hasty_harness(ray_harness: Harness) -> Iterator[Harness]:
    """Another one on the same Ray, which gives what does not react 0.5 s."""
    from raysched.backends.ray.backend import RayBackend

    del ray_harness
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSCHED_TERMINATION_GRACE_SECONDS", "0.5")
        settings.cache_clear()
        backend = RayBackend(code_path=HERE.parent)
    settings.cache_clear()
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
