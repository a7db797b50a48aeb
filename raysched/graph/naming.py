"""What a module is called, however its file was loaded."""

import sys
from functools import cache
from pathlib import Path

MAIN = "__main__"

BY_VALUE_PREFIX = "raysched_target_"
"""Of modules that cannot be imported under the name of their file."""


@cache
def main_name() -> str:
    """Return what the module of this process's `__main__` is called elsewhere, or ""."""
    main = sys.modules.get(MAIN)
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    # As `cli.target` names what it cannot import.
    return Path(file).stem.replace(".", "_") if file else ""


def module_name(module: str) -> str:
    """Return the one name of a module: that of its file's stem, where it was run or is a target."""
    if module == MAIN:
        return main_name() or MAIN
    return module.removeprefix(BY_VALUE_PREFIX)
