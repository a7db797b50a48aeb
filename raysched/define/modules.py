"""What can be known of modules without importing them: their files, and their versions."""

import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def version_of(module: str) -> str:
    """Return the version of the library that a module is in; "" for Python's own, or not known."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or not top:
        return ""
    # Not by getattr: modules may compute it, and warn.
    own = vars(sys.modules[top]).get("__version__") if top in sys.modules else None
    return own if isinstance(own, str) else _installed_version(top)


@lru_cache(maxsize=1024)
def _installed_version(package: str) -> str:
    try:
        return version(package)
    except (PackageNotFoundError, ValueError):
        return ""


def named(name: str, level: int, attributes: Sequence[str], package: str) -> Iterator[str]:
    """Yield the full names of the modules that an `import` statement leads to.

    Args:
        name: What follows `import` or `from`, without the dots before it.
        level: How many dots there are.
        attributes: The names after `from … import`.
        package: The package of the module with the statement.
    """
    if level:
        around = package.split(".")[: len(package.split(".")) - level + 1]
        name = ".".join([*around, *([name] if name else [])])
    yield name
    for attribute in attributes:
        if attribute != "*" and file_of(f"{name}.{attribute}") is not None:
            yield f"{name}.{attribute}"


def file_of(module: str) -> str | None:
    """Return the file of a module, found as an import would find it; None if it has none."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        return getattr(loaded, "__file__", None)
    path: list[str] | None = None
    file: str | None = None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        try:
            spec = PathFinder.find_spec(".".join(parts[:end]), path)
        except (ImportError, AttributeError, KeyError, ValueError):
            # A namespace package looks its parent up among what is imported.
            return None
        if spec is None or (end < len(parts) and spec.submodule_search_locations is None):
            return None
        path = list(spec.submodule_search_locations or ())
        file = spec.origin if spec.has_location else None
    return file


def package_of(file: Path) -> str:
    """Return the name of the package that a module's file is in, "" for none."""
    names: list[str] = []
    directory = file.parent
    while (directory / "__init__.py").is_file():
        names.insert(0, directory.name)
        directory = directory.parent
    return ".".join(names)
