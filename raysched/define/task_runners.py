"""What a flow's `task_runner=` may be: where its task runs go, and how many at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raysched.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class RayTaskRunner:
    """Runs on the Ray cluster at an address.

    Attributes:
        address: Ray address, or None for that of the settings.
        init_kwargs: More arguments for `ray.init`.
    """

    address: str | None = None
    init_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        address: object = self.address
        if address is not None and not (isinstance(address, str) and address):
            raise InvalidOption(
                f"RayTaskRunner: address={self.address!r}: must be a text such as 'auto' or "
                "'ray-head:6379'"
            )
        if not isinstance(self.init_kwargs, Mapping):
            raise InvalidOption(f"RayTaskRunner: init_kwargs={self.init_kwargs!r}: must be a dict")


@dataclass(frozen=True, slots=True)
class ThreadPoolTaskRunner:
    """Limits the task runs of a flow run, as the option `max_parallel` of the flow does.

    Attributes:
        max_workers: Most task runs at once, or None for no limit.
    """

    max_workers: int | None = None

    def __post_init__(self) -> None:
        workers: object = self.max_workers
        if workers is not None and (
            isinstance(workers, bool) or not isinstance(workers, int) or workers < 1
        ):
            raise InvalidOption(
                f"ThreadPoolTaskRunner: max_workers={workers!r}: must be an integer, 1 or more"
            )
