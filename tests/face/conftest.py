"""The face is tested on the inline backend, with a database of its own."""

from collections.abc import Iterator

import pytest

from raysched import wiring
from raysched.settings import settings


@pytest.fixture(autouse=True, scope="session")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run all flows inline, in one engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSCHED_BACKEND", "inline")
        patch.setenv("RAYSCHED_HOME", str(tmp_path_factory.mktemp("home")))
        settings.cache_clear()
        yield
        wiring.disconnect()
    settings.cache_clear()
