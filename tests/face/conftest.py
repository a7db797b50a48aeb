"""The face is tested with a database of its own, inline or on Ray: `--backend`."""

from collections.abc import Iterator

import pytest

from face.told import Told
from raysched import wiring
from raysched.settings import settings


@pytest.fixture(autouse=True, scope="session")
def engine(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Run all flows in one engine."""
    backend = request.config.getoption("--backend")
    if backend == "ray":
        request.getfixturevalue("local_ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSCHED_BACKEND", backend)
        patch.setenv("RAYSCHED_HOME", str(tmp_path_factory.mktemp("home")))
        settings.cache_clear()
        yield
        wiring.disconnect()
    settings.cache_clear()


@pytest.fixture
def in_this_process(request: pytest.FixtureRequest) -> None:
    """Skip tests that look at what task runs leave in the test's own process."""
    if request.config.getoption("--backend") != "inline":
        pytest.skip("task runs are in processes of their own")


@pytest.fixture
def told() -> Told:
    """What the hooks of the test's tasks tell."""
    return Told()
