"""Flows of the tests of caching run in databases of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from raysched.settings import settings
from raysched.testing import inline
from raysched.wiring import Configuration, configure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
from policies.cached import RAN, Log


@pytest.fixture(params=["inline", "ray"])
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Flows run on a backend, with a database of their own."""
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    before = configure(Configuration(request.param))
    yield request.param
    configure(before)
    settings.cache_clear()


@pytest.fixture
def here() -> Iterator[None]:
    """Flows run inline, with a database of their own."""
    with inline():
        yield


@pytest.fixture(autouse=True)
def nobody_has_run() -> None:
    """Begin with an empty list."""
    RAN.clear()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Where task runs note that they ran."""
    return Log(tmp_path / "log")
