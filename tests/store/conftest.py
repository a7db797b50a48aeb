"""Databases for the suites, of both kinds."""

from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs.db'}"
    schema: str = request.getfixturevalue("postgresql_url")
    return schema


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"
