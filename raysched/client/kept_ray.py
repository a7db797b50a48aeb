"""The Ray that is kept running on this machine between runs, for the command line and scripts.

Whoever imports this imports Ray.
"""

from pydantic import ValidationError

from raysched.backends.ray import head, look
from raysched.backends.ray.kept import StartOptions
from raysched.backends.ray.look import Look
from raysched.errors import InvalidOption
from raysched.settings import settings

__all__ = ["Look", "end_ray", "look_at_ray", "start_ray"]


def start_ray(
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    object_store_memory: int | str | None = None,
    dashboard: bool = False,
) -> bool:
    """Start a Ray that is kept until `end_ray`; runs without an address find it by themselves.

    Args:
        num_cpus: Logical CPUs, by default those of the machine.
        num_gpus: Logical GPUs, by default those of the machine.
        object_store_memory: Size of the object store (bytes, or such as `2GiB`).
        dashboard: Whether Ray's dashboard runs, too.

    Returns:
        Whether it was started: False if it is there already.

    Raises:
        InvalidOption: An option has an impossible value.
        BackendUnreachable: Ray does not start, or the record of another one cannot be read.
        BackendError: One is there that these options do not describe, or that this Python cannot
            use; or the home cannot be written.
    """
    given = {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "object_store_memory": object_store_memory,
        "dashboard": dashboard,
    }
    try:
        options = StartOptions.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(
            f"{item['loc'][0]}={item['input']!r}: {item['msg']}" for item in error.errors()
        )
        raise InvalidOption(problems) from error
    return head.start(settings().home, options)


def look_at_ray() -> Look | None:
    """Return what is to be seen of the Ray that is kept, or None if there is none.

    Raises:
        BackendUnreachable: Its record cannot be read.
    """
    return look.look(settings().home)


def end_ray(*, force: bool = False) -> Look | None:
    """End the Ray that is kept, and nothing else.

    Args:
        force: Also while programs are connected to it.

    Returns:
        What was seen of it before, or None if there was none.

    Raises:
        BackendError: Programs are connected, or it does not tell; or the home cannot be written.
        BackendUnreachable: Its record cannot be read.
    """
    return head.stop(settings().home, force=force)
