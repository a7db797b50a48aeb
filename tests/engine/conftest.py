"""An engine of a test's own, that shows what it commits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.committed import Committed
from engine.going_on import begin
from raysched.engine.ports import Clock
from raysched.settings import settings
from raysched.testing import FakeClock
from raysched.wiring import Configuration, SystemClock, configure


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Committed]:
    """Run the flows of a test inline, with a clock that jumps, and keep what was committed."""
    with _engine(tmp_path, monkeypatch, FakeClock()) as kept:
        yield kept


@pytest.fixture
def in_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Committed]:
    """Do as `committed`, with the clock of this machine."""
    with _engine(tmp_path, monkeypatch, SystemClock()) as kept:
        yield kept


@pytest.fixture
def nothing_ran() -> Iterator[None]:
    """Nothing is known yet of what task functions executed, and nothing is left behind."""
    begin()
    yield
    begin()


@contextmanager
def _engine(home: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[Committed]:
    monkeypatch.setenv("RAYSCHED_HOME", str(home / "home"))
    monkeypatch.delenv("RAYSCHED_DATABASE_URL", raising=False)
    settings.cache_clear()
    kept = Committed()
    before = configure(Configuration("inline", clock=clock, observers=[kept]))
    try:
        yield kept
    finally:
        configure(before)
        settings.cache_clear()
