"""Databases for the suites, of both kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from raysched.store import open_reader, open_store
from raysched.store.reader import Reader
from raysched.store.sql import SqlStore


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


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def reader(url: str) -> Iterator[Reader]:
    reader = open_reader(url)
    yield reader
    reader.close()
