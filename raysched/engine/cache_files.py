"""Digests of the content of files and directories that arguments name."""

import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from hashlib import blake2b, file_digest
from pathlib import Path, PurePath

from raysched.model.ids import IDENTITY_BYTES

SETTLED_NS = 2 * 10**9
"""A file that was changed within this time (ns) may change again without a later time of change:
file systems tell it in ticks of up to two seconds."""

MOST_REMEMBERED = 100_000
"""Files whose digests are remembered."""

_MISSING = b"missing"


class FileDigests:
    """Digests of files, remembered for as long as size, times and place of a file are the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], bytes] = {}
        self._lock = threading.Lock()

    def of(self, paths: list[Path]) -> bytes:
        """Return the digest of what is at these paths, in order; what is missing counts, too.

        Raises:
            OSError: Something is there and cannot be read.
        """
        hasher = blake2b(digest_size=IDENTITY_BYTES)
        for path in paths:
            hasher.update(self._at(path))
        return hasher.digest()

    def _at(self, path: Path) -> bytes:
        hasher = blake2b(digest_size=IDENTITY_BYTES)
        try:
            status = path.stat()
            if not stat.S_ISDIR(status.st_mode):
                return self._file(path, status)
            for name, entry in _entries(path):
                hasher.update(b"%b\0" % os.fsencode(name) + self._entry(entry))
        except (FileNotFoundError, NotADirectoryError):
            hasher.update(_MISSING)
        return hasher.digest()

    def _entry(self, path: str) -> bytes:
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            return self._file(Path(path), status)
        # Links in a directory count by where they lead: they may lead out of it, or around.
        target = os.fsencode(Path(path).readlink()) if stat.S_ISLNK(status.st_mode) else b""
        return blake2b(target, digest_size=IDENTITY_BYTES).digest()

    def _file(self, path: Path, status: os.stat_result) -> bytes:
        place = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        with self._lock:
            known = self._known.get(place)
        if known is None:
            settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
            with path.open("rb") as file:
                known = file_digest(file, _blake2b).digest()
            if settled:
                self._remember(place, known)
        return known

    def _remember(self, place: tuple[int, ...], digest: bytes) -> None:
        with self._lock:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[place] = digest


def _blake2b() -> blake2b:
    return blake2b(digest_size=IDENTITY_BYTES)


def _entries(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield what is in a directory and below, by its path there, sorted."""
    for where, directories, files in os.walk(directory, onerror=_raise):
        directories.sort()
        links = [name for name in directories if (Path(where) / name).is_symlink()]
        for name in sorted([*files, *links]):
            path = str(Path(where) / name)
            yield os.path.relpath(path, directory), path
        if not directories and not files and where != str(directory):
            # An empty one counts, too.
            yield os.path.relpath(where, directory), where


def _raise(error: OSError) -> None:
    raise error


def paths_in(value: object) -> Iterator[Path]:
    """Yield the paths in an argument: itself, or what is in lists, tuples, sets and dicts."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, PurePath | str | bytes):
        return
    elif isinstance(value, Mapping):
        for key, element in value.items():
            yield from paths_in(key)
            yield from paths_in(element)
    elif isinstance(value, set | frozenset):
        yield from sorted(path for element in value for path in paths_in(element))
    elif isinstance(value, list | tuple):
        for element in value:
            yield from paths_in(element)
