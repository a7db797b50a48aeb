"""A directory for each test, with drivers in it that count what they execute."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from raysched.settings import settings
from resume.places import COMMON, CountingPlace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingPlace]:
    """A directory with `common.py`; drivers in it run inline."""
    for name in [name for name in os.environ if name.startswith("RAYSCHED_")]:
        monkeypatch.delenv(name)
    settings.cache_clear()
    # Also for looking from this process.
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    place = CountingPlace(tmp_path, {"RAYSCHED_BACKEND": "inline", "COLUMNS": "200"})
    place.write(COMMON, "common.py")
    yield place
    place.close()
    settings.cache_clear()


@pytest.fixture
def ray_place(place: CountingPlace, local_ray: None) -> CountingPlace:
    """The same; drivers in it use the Ray of this session."""
    del local_ray
    place.use_local_ray()
    return place


@pytest.fixture
def postgresql_place(
    place: CountingPlace, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> CountingPlace:
    """The same; runs are kept in PostgreSQL."""
    monkeypatch.setenv("RAYSCHED_DATABASE_URL", postgresql_url)
    settings.cache_clear()
    return place


@pytest.fixture(params=["inline", "ray", "postgresql"])
def any_place(request: pytest.FixtureRequest) -> CountingPlace:
    """A place of each kind."""
    name = "place" if request.param == "inline" else f"{request.param}_place"
    found: CountingPlace = request.getfixturevalue(name)
    return found
