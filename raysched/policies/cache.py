"""Cache keys: from what a result depends on to a key, and from two keys to what made them differ.

What a result depends on comes in *parts* by name: each argument under its own, the others under
names that no argument can have, since they have a space in them.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from raysched.model.ids import IDENTITY_BYTES

KEY = "cache key"
"""Name of the part that a `cache_key_fn` has returned."""

SOURCE = "task source"
RUN = "run id"
PARAMETER = "flow parameter "
"""How the names of parts begin that are parameters of the flow run."""

FILES = "files of "
"""How the names of parts begin that are the content of files that an argument names."""

TASK_BYTES = 4
"""With so much of its task each key begins: the keys of a map are near each other in the database,
however many others there are (bytes)."""

SHOWN_BYTES = 8
"""So much of each digest is kept, for comparison with others (bytes)."""

KEY_CHARACTERS = 200
"""So much is kept of what a `cache_key_fn` has returned."""


def cache_key(label: bytes, parts: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Return the key of a result, and its parts as they are kept (see `CacheClaim.parts`).

    Args:
        label: What tells the task from others: two tasks never share a result.
        parts: Digests of what the result depends on, by name.
    """
    names = sorted(parts)
    head = _head(label)
    data = b"".join([head, *(_part(name) + parts[name] for name in names)])
    key = head[:TASK_BYTES] + blake2b(data, digest_size=IDENTITY_BYTES - TASK_BYTES).digest()
    return key, json.dumps({name: _shown(parts[name]) for name in names}, separators=(",", ":"))


def cache_keys(
    label: bytes, fixed: Mapping[str, bytes], columns: Mapping[str, Sequence[bytes]]
) -> tuple[list[bytes], list[str]]:
    """Return the keys of the rows of a map, and their parts: of each what `cache_key` would return.

    Args:
        label: As of `cache_key`.
        fixed: Parts that all rows have in common.
        columns: The other parts, by name.
    """
    names = sorted([*fixed, *columns])
    shown = {name: _shown(fixed[name]) if name in fixed else "*" for name in names}
    text = json.dumps(shown, separators=(",", ":")).replace("%", "%%")
    # In a name the quotes would have a backslash before them.
    text = text.replace(':"*"', ':"%s"')
    head, size = _head(label), IDENTITY_BYTES - TASK_BYTES
    data, of_task = _escaped(head), head[:TASK_BYTES]
    for name in names:
        data += _escaped(_part(name)) + (_escaped(fixed[name]) if name in fixed else b"%b")
    varied = [columns[name] for name in names if name in columns]
    keys = [
        of_task + blake2b(data % row, digest_size=size).digest()
        for row in zip(*varied, strict=True)
    ]
    told = [[_shown(digest) for digest in column] for column in varied]
    return keys, [text % row for row in zip(*told, strict=True)]


def named_key(name: str) -> tuple[bytes, str]:
    """Return the key that a `cache_key_fn` has chosen, which tasks may share, and its parts."""
    data = name.encode("utf-8", "surrogatepass")
    key = blake2b(data, digest_size=IDENTITY_BYTES, person=b"cache_key_fn").digest()
    return key, json.dumps({KEY: name[:KEY_CHARACTERS]}, separators=(",", ":"))


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return in which parts two keys of a task differ, for people.

    Args:
        before: The parts of one, as they are kept.
        now: Those of the other.
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [_told(name, before.get(name), now.get(name)) for name in sorted(names, key=_order)]


def nearest(now: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> list[str]:
    """Return how a key differs from that of the others which is most like it, for people.

    Args:
        now: Its parts, as they are kept.
        others: Those of others, the newest first; at least one.
    """
    return min((differences(other, now) for other in others), key=len)


def _head(label: bytes) -> bytes:
    return blake2b(label, digest_size=IDENTITY_BYTES).digest()


def _part(name: str) -> bytes:
    # All digests have one length, so where each name begins and ends is clear.
    return name.encode() + b"\0"


def _escaped(data: bytes) -> bytes:
    return data.replace(b"%", b"%%")


def _shown(digest: bytes) -> str:
    return digest[:SHOWN_BYTES].hex()


def _order(name: str) -> tuple[int, str]:
    """What is more than one argument's comes first."""
    return (0 if name in {SOURCE, RUN, KEY} else 1), name


_WORDS = {SOURCE: "the task's code has changed", RUN: "it is another flow run"}


def _told(name: str, before: str | None, now: str | None) -> str:
    if name in _WORDS:
        return _WORDS[name]
    if name == KEY:
        return f"cache_key_fn returned {now!r}, not {before!r}"
    if name.startswith(PARAMETER):
        return f"the flow's parameter {name.removeprefix(PARAMETER)!r} differs"
    if name.startswith(FILES):
        return f"the files that argument {name.removeprefix(FILES)!r} names have changed"
    if before is None or now is None:
        return f"argument {name!r} {'was not' if before is None else 'is no longer'} a part of it"
    return f"argument {name!r} differs"
