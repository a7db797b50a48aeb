"""The arguments of a failed attempt, as evidence."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from raysched.model.values import Input
from raysched.worker.masking import Masks
from raysched.worker.previews import Previews, type_of

INPUTS_MAX = 50
"""Arguments beyond this number are left out."""


def inputs_of(
    arguments: Callable[[], Mapping[str, Any]],
    slots: Callable[[], Mapping[str, frozenset[int]]],
    masks: Masks,
    *,
    only_quick: bool = False,
) -> list[Input]:
    """Return the arguments of an attempt as they are now; never raises.

    Args:
        arguments: Returns them by the name of their parameter.
        slots: Returns the numbers of the slots whose values are in them.
        masks: What is not to be shown.
        only_quick: Whether to call no code but the standard library's, see `Previews`.
    """
    try:
        given = dict(islice(arguments().items(), INPUTS_MAX))
    except Exception:  # noqa: BLE001 - they may not fit the signature: that is the failure
        return []
    try:
        sources = slots()
    except Exception:  # noqa: BLE001 - unusual ways to pickle may not be understood without the class
        sources = {}
    previews = Previews(masks, only_quick=only_quick)
    return [_input(name, given[name], sources.get(name), previews) for name in given]


def _input(name: str, value: object, slots: frozenset[int] | None, previews: Previews) -> Input:
    found = Input(name=name, preview=previews.of(value, name), type=type_of(value))
    if slots:
        found["slots"] = sorted(slots)
    return found
