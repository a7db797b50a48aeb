"""How the user's modules get onto the workers' import path."""

import logging
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray.job_config import JobConfig

FILE_MAX_BYTES = 10 * 1024**2
"""A larger file is data, not code: it is not shipped."""

TOTAL_MAX_BYTES = 100 * 1024**2
"""Beyond this, only the modules at the top of the directory are shipped."""

EXCLUDED = (
    ".git",
    ".hg",
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".nox",
    ".pytest_cache",
    ".ruff_cache",
    ".svn",
    ".tox",
    ".venv",
    "__pycache__",
    "*.pyc",
    "node_modules",
    "site-packages",
    "build",
    "dist",
    "*.egg-info",
)
"""Names that are never shipped, as patterns of .gitignore; nor is any virtual environment.

Not `.*`: Ray matches it against `.`, the directory itself, and ships nothing.
"""

_JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"

_log = logging.getLogger(__name__)


def default_code_path() -> Path | None:
    """Return the directory of the running script, or of `python -m`; None in a notebook."""
    main = sys.modules.get("__main__")
    if not getattr(main, "__file__", None):
        return None
    if getattr(main, "__spec__", None) is not None:
        return Path.cwd()
    directory = Path(sys.argv[0]).resolve().parent
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("scripts", "purelib")}
    return None if directory in installed else directory


def with_code(
    arguments: Mapping[str, Any], code_path: Path | None, *, here: bool
) -> dict[str, Any]:
    """Return arguments for `ray.init` that put a directory on the import path of the job's workers.

    Args:
        arguments: Arguments for `ray.init`; what they say about code themselves is respected.
        code_path: The directory, or None.
        here: Whether all workers are on this machine: then they import from the directory itself.
            Otherwise its modules and packages are shipped, each once for each content, by Ray.
    """
    result = dict(arguments)
    if code_path is None:
        return result
    if here:
        job_config = result.setdefault("job_config", JobConfig())
        # Public by its name in JSON only (JobConfig.from_json); Ray fills it for scripts itself.
        job_config._py_driver_sys_path.append(str(code_path))  # noqa: SLF001
        return result
    environment = dict(result.get("runtime_env") or {})
    if "working_dir" in environment or _JOB_CONFIG_VARIABLE in os.environ:
        # The user, or `ray job submit`, ships the code already.
        return result
    modules, excludes = collect(code_path)
    if modules:
        environment["py_modules"] = [*environment.get("py_modules", ()), *map(str, modules)]
        environment["excludes"] = [*environment.get("excludes", ()), *EXCLUDED, *excludes]
        result["runtime_env"] = environment
    return result


def collect(code_path: Path) -> tuple[list[Path], list[str]]:
    """Return what can be imported from a directory, and patterns of what in it is too large.

    Args:
        code_path: The directory.

    Returns:
        Its modules (`*.py`) and the directories in it that contain modules, sorted.
    """
    modules = sorted(path for path in code_path.glob("*.py") if path.is_file())
    packages = sorted(path for path in code_path.iterdir() if _is_package(path))
    excludes: list[str] = []
    total = 0
    for package in packages:
        for path in _files(package):
            size = path.stat().st_size
            if size > FILE_MAX_BYTES:
                excludes.append(f"/{path.relative_to(package)}")
            else:
                total += size
            if total > TOTAL_MAX_BYTES:
                _log.warning(
                    "the packages in %s have more than %d MB and are not shipped to other nodes: "
                    "keep the flow in a directory with its code only, or install them there",
                    code_path,
                    TOTAL_MAX_BYTES // 1024**2,
                )
                return modules, []
    return [*modules, *packages], excludes


def _is_package(path: Path) -> bool:
    return (
        path.is_dir()
        and path.name.isidentifier()
        and not _is_excluded(path)
        and any(file.suffix == ".py" for file in _files(path))
    )


def _files(directory: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not _is_excluded(Path(folder, name))]
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not any(path.match(pattern) for pattern in EXCLUDED):
                yield path


def _is_excluded(directory: Path) -> bool:
    return (
        any(directory.match(pattern) for pattern in EXCLUDED) or (directory / "pyvenv.cfg").exists()
    )
