"""Identifiers."""

import secrets
from collections.abc import Sequence

IDENTITY_BYTES = 16
"""Length of an identity digest (bytes): what a resume matches task runs on."""

SHORT_ID = 8
"""Digits of a flow run id that people are shown; any unique prefix is accepted."""


def new_run_id() -> str:
    """Return a new flow run id: 32 random hexadecimal digits.

    Random from the first digit on, so that a short prefix already tells runs apart.
    """
    return secrets.token_hex(16)


def split_identities(digests: bytes | bytearray) -> list[bytes]:
    """Return the identity digests that stand one after the other in a buffer."""
    data = bytes(digests)
    return [data[at : at + IDENTITY_BYTES] for at in range(0, len(data), IDENTITY_BYTES)]


def task_run_key(task_name: str, index: int) -> str:
    """Return the key that people see and type, for example `parse[17]`.

    Args:
        task_name: The task's name.
        index: Position among the task runs of that name in the flow run, in order of calls.
    """
    return f"{task_name}[{index}]"


def some_of(keys: Sequence[str], most: int) -> str:
    """Return keys as people read them: the first ones, and how many more there are.

    Args:
        keys: The keys of task runs.
        most: How many are named.
    """
    more = f" and {len(keys) - most:,} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def task_name_of(key: str) -> str:
    """Return the task's name in the key of a task run."""
    return key.rpartition("[")[0]


def task_run_id(flow_run_id: str, key: str) -> str:
    """Return the id of a task run: `<flow run id>/<key>`, the same in every attempt."""
    return f"{flow_run_id}/{key}"
