"""A flow of the examples, in a real Jaeger, which is asked what it has got."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from faults.drivers import Place, until
from raysched.settings import settings
from telemetry.trees import kept_names

JAEGER = shutil.which(os.environ.get("RAYSCHED_JAEGER", "jaeger"))
FLIGHTS = Path(__file__).parents[2] / "examples" / "flights" / "flow.py"

pytestmark = pytest.mark.skipif(
    JAEGER is None, reason="there is no jaeger on PATH, and none in RAYSCHED_JAEGER"
)


@pytest.fixture
def place(
    nothing_set: None, local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A directory, with a Jaeger of its own."""
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    calm = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    place = Place(tmp_path, {"RAYSCHED_JAEGER": str(JAEGER), **calm})
    place.use_local_ray()
    yield place
    place.start("-m", "raysched", "jaeger", "--stop").finish()
    place.close()
    settings.cache_clear()


def ask(pages: str, path: str) -> Any:
    with urlopen(f"{pages}/api/{path}") as answer:  # noqa: S310 - our own
        return json.load(answer)["data"]


def test_flights(place: Place) -> None:
    started = place.start("-m", "raysched", "jaeger", "--json")
    assert started.finish() == 0, started.output
    pages = json.loads(started.output)["ui"]
    driver = place.run(str(FLIGHTS), "-p", "months=[1,2]", "-p", "destinations=3")
    assert driver.finish() == 0, driver.output
    run_id = place.show()["id"]
    assert f"{pages}/trace/{run_id}" in driver.output
    kept = kept_names(place.path / "home" / "raysched.db")
    until(lambda: len(spans_of(pages, run_id)) >= kept.total(), "the trace in Jaeger")
    spans = spans_of(pages, run_id)
    names = [span["operationName"] for span in spans]
    assert {name: names.count(name) for name in names} == kept
    assert "raysched" in ask(pages, "services")
    ids = {span["spanID"] for span in spans}
    assert len(ids) == len(spans)
    references = [each for span in spans for each in span["references"]]
    assert {each["spanID"] for each in references} <= ids
    tops = [span for span in spans if not span["references"]]
    assert [span["operationName"].partition(" ")[0] for span in tops] == ["flow"]
    # Jaeger says there what it had to put right, such as clocks.
    assert [span["warnings"] for span in spans if span["warnings"]] == []


def spans_of(pages: str, run_id: str) -> list[Any]:
    """Return what Jaeger has of a trace by now."""
    with suppress(HTTPError):
        return [span for trace in ask(pages, f"traces/{run_id}") for span in trace["spans"]]
    return []
