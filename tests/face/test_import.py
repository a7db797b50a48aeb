import subprocess
import sys

import raysched

HEAVY = ("ray", "sqlmodel", "sqlalchemy", "opentelemetry", "numpy", "rich", "typer", "pydantic")


def loaded_by(program: str) -> set[str]:
    """Return which heavy libraries are there after a program."""
    check = f"import sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; {check}"], capture_output=True, check=True, text=True
    )
    return set(done.stdout.split())


def test_import_is_light() -> None:
    assert loaded_by("import raysched") == set()


def test_declaring_is_light() -> None:
    assert loaded_by("from raysched import flow, task; task(flow(print).fn, retries=3)") == set()


def test_names() -> None:
    for name in raysched.__all__:
        assert getattr(raysched, name) is not None
    # ruff sorts them, the constants first.
    assert len(set(raysched.__all__)) == len(raysched.__all__)
