"""What is kept of a flow run from its beginning."""

import json
import platform
from functools import cache

from raysched.define.ports import FlowRunStart
from raysched.errors import RayschedError
from raysched.model.rows import Execution, FlowRunRow
from raysched.model.states import StateType
from raysched.results.envelope import encode

KEPT_BYTES = 1024**2
"""Larger parameters of a flow run are kept as text only, larger results not at all (bytes)."""


CUT = "…"
"""Under this name parameters are kept that are too long to be shown whole: the beginning."""


def new_row(start: FlowRunStart, *, execution: Execution, target: str, backend: str) -> FlowRunRow:
    """Return the row of a flow run that begins.

    Args:
        start: What is being opened.
        execution: Its first execution.
        target: What this process was started to run, or "".
        backend: Description of the backend.
    """
    parent, continues = start.parent, start.continues
    return FlowRunRow(
        id=start.run_id,
        flow=start.spec.name,
        name=start.name,
        state=StateType.RUNNING,
        started=execution.started,
        parameters=preview(dict(start.parameters)),
        pickled_parameters=kept_envelope(dict(start.parameters)),
        tags=start.tags,
        parent=parent.start.run_id if parent is not None else "",
        target=target or start.target,
        backend=backend,
        versions=_versions(),
        key=start.key,
        identity=start.identity,
        rerun_of=continues.run_id if continues is not None else "",
        executions=(execution,),
    )


def kept_envelope(value: object) -> bytes | None:
    """Return the envelope of parameters, or of a result, or None where it cannot be kept."""
    try:
        encoded = encode(value)
    except RayschedError:
        return None
    return encoded.join() if encoded.size <= KEPT_BYTES else None


def preview(parameters: object, limit: int = 10_000) -> str:
    """Return parameters as JSON text for people.

    What JSON does not know is as pydantic writes it, a path as its text, or shown by its repr.
    """
    text = json.dumps(parameters, default=_as_json, skipkeys=True)
    return text if len(text) <= limit else json.dumps({CUT: text[:limit]})


def _as_json(value: object) -> object:
    from pydantic_core import to_jsonable_python  # 20 ms that most parameters do not need

    return to_jsonable_python(value, fallback=repr)


@cache
def _versions() -> str:
    """Return the versions of what a flow run runs with, as JSON text."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("raysched", "ray")}
    return json.dumps({"python": platform.python_version(), **packages})
