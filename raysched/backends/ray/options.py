"""Ray's own options of `@task`, checked by the Ray that is installed."""

import difflib
from collections.abc import Mapping
from typing import Any

from ray._common.ray_option_utils import task_options

from raysched.errors import InvalidOption


def validate_ray_options(options: Mapping[str, Any]) -> None:
    """Check names and values against the options that the installed Ray has for tasks.

    Args:
        options: Options as they will be given to `ray.remote`.

    Raises:
        InvalidOption: A name that Ray does not know, or a value that it refuses.
    """
    for name, value in options.items():
        if name not in task_options:
            raise InvalidOption(_unknown(name))
        try:
            task_options[name].validate(name, value)
        except (TypeError, ValueError) as error:
            raise InvalidOption(f"{name}={value!r}: {error}") from error


def _unknown(name: str) -> str:
    known = sorted(option for option in task_options if not option.startswith("_"))
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{name!r} is no option of Ray's tasks: {hint}There are {', '.join(known)}"
