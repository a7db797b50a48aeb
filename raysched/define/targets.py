"""Where a flow can be found again: what `raysched resume` imports."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from raysched.define.decorated import Decorated


def target_of(fn: Callable[..., Any]) -> str:
    """Return the TARGET of a flow's function, or "" where a new process could not import it.

    It holds in every directory: `/home/me/flow.py:nightly`, and `/home/me/shop.billing:monthly` for
    module `shop.billing` below `/home/me`. The module may be the script that runs.

    Args:
        fn: The user's function.
    """
    module = sys.modules.get(getattr(fn, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or not file or not file.endswith(".py"):
        return ""
    name = next(_names(module, fn), "")
    return f"{_place(module, Path(file).resolve())}:{name}" if name else ""


def _place(module: ModuleType, path: Path) -> str:
    # Of `python -m shop.billing` only the spec knows the name.
    spec = getattr(module, "__spec__", None)
    dotted = spec.name if spec is not None else ""
    if "." not in dotted:
        return str(path)
    above = dotted.count(".") + (path.name == "__init__.py")
    return str(path.parents[above] / dotted)


def _names(module: ModuleType, fn: Callable[..., Any]) -> Iterator[str]:
    """Yield the names under which a module knows the flow of a function."""
    qualname = getattr(fn, "__qualname__", "")
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if _is_of(found, fn):
        yield qualname
    yield from (name for name, value in list(vars(module).items()) if _is_of(value, fn))


def _is_of(value: object, fn: Callable[..., Any]) -> bool:
    return isinstance(value, Decorated) and value.word == "flow" and value.fn is fn
