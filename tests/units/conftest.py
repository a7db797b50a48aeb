"""Flows on Ray, in one engine with a database of its own."""

from collections.abc import Iterator

import pytest

from raysched import wiring
from raysched.settings import settings


@pytest.fixture(scope="module")
def on_ray(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run flows on the session's Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSCHED_BACKEND", "ray")
        patch.setenv("RAYSCHED_HOME", str(tmp_path_factory.mktemp("home")))
        settings.cache_clear()
        # What ran before in this process may have left an engine with another home.
        wiring.disconnect()
        yield
        wiring.disconnect()
    settings.cache_clear()
