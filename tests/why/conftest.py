"""A home of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from why import around


@pytest.fixture(autouse=True)
def home() -> Iterator[Path]:
    """Flows run inline, and are kept there."""
    with around.home() as folder:
        yield folder
