from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[2]


def test_typed_calls(tmp_path: Path) -> None:
    out, problems, code = api.run(
        [
            str(ROOT / "tests" / "typing" / "calls.py"),
            f"--config-file={ROOT / 'pyproject.toml'}",
            f"--cache-dir={tmp_path}",
            "--follow-imports=silent",
        ]
    )
    assert (problems, code) == ("", 0), out


def test_types_are_shipped() -> None:
    assert (ROOT / "raysched" / "py.typed").is_file()
