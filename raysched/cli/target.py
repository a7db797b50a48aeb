"""TARGET: `file.py`, `file.py:flow` or `package.module:flow` becomes a flow.

A module may have the directory before it that it is imported from: `/home/me/shop.billing:monthly`.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from raysched.define.flows import Flow
from raysched.define.tasks import Task
from raysched.errors import TargetError
from raysched.graph.naming import BY_VALUE_PREFIX
from raysched.graph.payload import register_by_value

AnyFlow: TypeAlias = Flow[..., Any]

FORMS = "TARGET is file.py, file.py:flow or package.module:flow"


@dataclass(frozen=True, slots=True)
class Target:
    """A flow, and where it comes from.

    Attributes:
        flow: The flow.
        text: The target with its flow, as it can be given again: `/home/me/dir/flow.py:flow`.
        code_path: Directory that workers need to import what the target imports.
    """

    flow: AnyFlow
    text: str
    code_path: Path


def load_target(text: str) -> Target:
    """Import TARGET and find its flow.

    The directory of a file comes first on `sys.path`, as when Python runs the file; for a module
    that is the current directory.

    Raises:
        TargetError: There is no such file, module or flow, there are several flows, or the import
            raises.
    """
    place, _, name = text.rpartition(":") if ":" in text else (text, "", "")
    if place.endswith(".py"):
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise TargetError(f"there is no file {path}. {FORMS}")
        module, place, code_path = _import_file(path), str(path), path.parent
    else:
        directory, _, dotted = place.rpartition("/")
        code_path = Path(directory).expanduser().resolve()
        module = _import_module(dotted, code_path)
        place = str(code_path / dotted) if _is_below(module, code_path) else dotted
    flow, name = (_named_flow(module, name, place), name) if name else _only_flow(module, place)
    return Target(flow, f"{place}:{name}", code_path)


def _import_file(path: Path) -> ModuleType:
    name = path.stem
    if "." in name or _is_other_module(name, path):
        return _import_by_value(path)
    _put_first(path.parent)
    with _telling(str(path)):
        return importlib.import_module(name)


def _import_by_value(path: Path) -> ModuleType:
    """Import a file whose name already stands for something else, here or on workers."""
    name = BY_VALUE_PREFIX + path.stem.replace(".", "_")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} is no Python file. {FORMS}")
    module = importlib.util.module_from_spec(spec)
    # Last: a random.py must not hide Python's own from everybody else.
    sys.path.append(str(path.parent))
    sys.modules[name] = module
    register_by_value(name)
    with _telling(str(path)):
        spec.loader.exec_module(module)
    return module


def _is_other_module(name: str, path: Path) -> bool:
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return file is None or Path(file).resolve() != path
    spec = importlib.util.find_spec(name)
    return spec is not None and (spec.origin is None or Path(spec.origin).resolve() != path)


def _import_module(name: str, directory: Path) -> ModuleType:
    _put_first(directory)
    if not _is_there(name):
        file = directory / f"{name}.py"
        advice = f"; did you mean {file.name}?" if file.is_file() else ""
        where = "here" if directory == Path.cwd() else f"in {directory}"
        raise TargetError(f"there is no module {name!r} {where}{advice}. {FORMS}")
    with _telling(name):
        return importlib.import_module(name)


def _is_below(module: ModuleType, directory: Path) -> bool:
    """Whether it was found in the directory, and not where Python finds it from anywhere."""
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(directory)


def _is_there(name: str) -> bool:
    """Whether the module and the packages around it can be found; imports the latter."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return False
    for end in range(1, len(parts) + 1):
        if importlib.util.find_spec(".".join(parts[:end])) is None:
            return False
        if end < len(parts):
            with _telling(name):
                package = importlib.import_module(".".join(parts[:end]))
            if not hasattr(package, "__path__"):
                return False
    return True


@contextmanager
def _telling(place: str) -> Iterator[None]:
    """Turn whatever an import raises into a `TargetError` with the traceback of the user's code."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text = "".join(_user_traceback(error)).rstrip()
        advice = ""
        if isinstance(error, ImportError) and "relative import" in str(error):
            advice = "\n\nRun a module of a package as TARGET package.module:flow"
        raise TargetError(f"the import of {place} raises\n\n{text}{advice}") from error


def _user_traceback(error: BaseException) -> list[str]:
    """Format `error` without the frames of this module and of the import system."""
    trace = error.__traceback__
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return traceback.format_exception(error.with_traceback(trace))


def _is_machinery(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")


def _put_first(directory: Path) -> None:
    entry = str(directory)
    if sys.path[:1] != [entry]:
        sys.path.insert(0, entry)


def _named_flow(module: ModuleType, name: str, place: str) -> AnyFlow:
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            flows = _flows(module)
            close = get_close_matches(name, flows, n=1)
            hint = f"; did you mean {close[0]}?" if close else _list(flows)
            raise TargetError(f"{place} has no {name!r}{hint}")
        found = getattr(found, part)
    if isinstance(found, Flow):
        return found
    what = "a task" if isinstance(found, Task) else f"of type {type(found).__name__}"
    raise TargetError(
        f"{place}:{name} is {what}, not a flow: put @flow above the function to run"
        f"{_list(_flows(module))}"
    )


def _only_flow(module: ModuleType, place: str) -> tuple[AnyFlow, str]:
    flows = _flows(module)
    # Flows that came by an import are subflows of the one that is meant.
    own = {name: flow for name, flow in flows.items() if flow.fn.__module__ == module.__name__}
    candidates = own or flows
    if not candidates:
        raise TargetError(f"{place} has no flow: put @flow above the function to run")
    if len(candidates) > 1:
        choices = "".join(f"\n  {place}:{name}" for name in candidates)
        raise TargetError(f"{place} has {len(candidates)} flows, name one of them:{choices}")
    ((name, flow),) = candidates.items()
    return flow, name


def _flows(module: ModuleType) -> dict[str, AnyFlow]:
    """Return the module's flows by their first name there."""
    flows: dict[int, tuple[str, AnyFlow]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Flow):
            flows.setdefault(id(value), (name, value))
    return dict(flows.values())


def _list(flows: Iterable[str]) -> str:
    names = ", ".join(flows)
    return f"; flows there: {names}" if names else "; there is no flow at all"


def find_task(flow: AnyFlow, name: str) -> Task[..., Any]:
    """Return the task of that name: of the flow's module, or of another that it has imported.

    Raises:
        TargetError: There is no such task in any module, or there are several.
    """
    home = sys.modules.get(flow.fn.__module__)
    others = (module for module in list(sys.modules.values()) if module is not home)
    for modules in ([home], others):
        found = {
            id(task.fn): task for module in modules for task in _tasks(module) if task.name == name
        }
        if len(found) > 1:
            places = ", ".join(
                f"{task.fn.__module__}:{task.fn.__qualname__}" for task in found.values()
            )
            raise TargetError(f"there are several tasks of the name {name!r}: {places}")
        for task in found.values():
            return task
    known = ", ".join(sorted({task.name for task in _tasks(home)})) or "none"
    raise TargetError(
        f"{flow.fn.__module__} has no task {name!r} in a variable of a module, and imports none; "
        f"it has: {known}. A task that is made within a function cannot be found"
    )


def _tasks(module: ModuleType | None) -> list[Task[..., Any]]:
    # Some modules make their variables when they are asked for: only look at what is there.
    return [value for value in list(vars(module).values()) if type(value) is Task] if module else []
