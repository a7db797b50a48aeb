"""The result storage: large values in files of a directory that any fsspec URL may name.

A unit writes its large values into one object, one envelope after the other. Nobody reads an object
before its values' locations are known, and those tell the digest of each: what is not there any
more, or not what it was, is noticed. Local directories are read and written without fsspec.
"""

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from raysched.errors import ResultLost, SettingsError
from raysched.results.envelope import Parts, decode, pieces

DIGEST_BYTES = 16

LOCAL = "file://"

PIECES_MAX = 1000
"""Most buffers of one `writev` (IOV_MAX of Linux is 1024)."""


class Location(NamedTuple):
    """Where a value is; see `model.values.StoredValue`.

    Attributes:
        url: URL of the object, or its absolute path.
        start: Its first byte there.
        length: Its bytes.
        digest: BLAKE2b of them (16 bytes), in hexadecimal.
    """

    url: str
    start: int
    length: int
    digest: str

    def __str__(self) -> str:
        return f"{self.url}#{self.start}+{self.length}:{self.digest}"


class StoredObject(NamedTuple):
    """An object of the storage.

    Attributes:
        url: As in `Location`.
        size: Bytes.
        modified: When it was written (seconds since the epoch), 0 where the storage does not tell.
    """

    url: str
    size: int
    modified: float


def parse(location: str) -> Location:
    """Return the parts of a location; an URL may have any character, also `#`.

    Raises:
        ResultLost: It is none.
    """
    url, _, part = location.rpartition("#")
    span, _, digest = part.partition(":")
    start, _, length = span.partition("+")
    if not (url and start.isdecimal() and length.isdecimal() and digest):
        raise ResultLost(f"{location!r} is no location of a stored result: it is damaged")
    return Location(url, int(start), int(length), digest)


def open_storage(url: str) -> str:
    """Return the URL of a result storage as it goes to workers, a local one as an absolute path.

    Args:
        url: An URL of fsspec, or a path.

    Raises:
        SettingsError: fsspec does not know the protocol, or what that takes is not installed.
    """
    local = _local_path(url)
    if local is not None:
        return os.path.abspath(os.path.expanduser(local))  # noqa: PTH100, PTH111 - keeps symlinks
    from fsspec.core import split_protocol
    from fsspec.registry import get_filesystem_class

    for link in url.split("::"):
        protocol, _ = split_protocol(link)
        try:
            get_filesystem_class(protocol or link)
        except (ImportError, ValueError) as error:
            raise SettingsError(
                f"RAYSCHED_RESULT_STORAGE={url}: {_advice(protocol or link, error)}"
            ) from error
    return url.rstrip("/")


def _advice(protocol: str, error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"{error}: install it here and on every node, e.g. pip install 'fsspec[{protocol}]'"
    return f"{error}; it must be an URL that fsspec knows, such as s3://bucket/results, or a path"


def directory_of(storage: str, run_id: str) -> str:
    """Return the directory into which the units of a flow run write."""
    return f"{storage}/{run_id}"


def write(
    directory: str, name: str, values: Iterable[Parts], *, durable: bool = False
) -> list[str]:
    """Write values into one new object; return the location of each.

    The object is there as a whole or not at all in local directories and object stores.

    Args:
        directory: See `directory_of`.
        name: Of the object, for people: what is added makes it unique.
        values: What is written.
        durable: Whether to wait until it survives a loss of power, in a local directory.

    Raises:
        Exception: Whatever the storage raises: it cannot be written.
    """
    url = f"{directory}/{name}-{os.getpid()}-{secrets.token_hex(4)}"
    locations, parts, start = [], [], 0
    for value in values:
        digest, length = hashlib.blake2b(digest_size=DIGEST_BYTES), 0
        for piece in pieces(value):
            digest.update(piece)
            length += piece.nbytes
            parts.append(piece)
        locations.append(str(Location(url, start, length, digest.hexdigest())))
        start += length
    local = _local_path(url)
    if local is not None:
        _write_local(Path(local), parts, durable=durable)
        return locations
    with _new_object(url) as file:
        for part in parts:
            file.write(part)
    return locations


def read(location: str) -> bytes:
    """Return the envelope of a stored value. Thread-safe.

    Raises:
        ResultLost: It is missing or damaged, or the storage cannot be read.
    """
    url, start, length, digest = parse(location)
    try:
        data = _read(url, start, length)
    except FileNotFoundError as error:
        raise ResultLost(f"the stored result {location} is missing") from error
    except Exception as error:
        raise ResultLost(
            f"the stored result {location} cannot be read: {type(error).__name__}: {error}"
        ) from error
    if hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest() != digest:
        raise ResultLost(f"the stored result {location} is damaged")
    return data


def load(location: str) -> Any:
    """Return a fresh copy of a stored value. Thread-safe.

    Raises:
        ResultLost: It is missing or damaged, or cannot be unpickled here any more.
    """
    envelope = read(location)
    try:
        return decode(envelope)
    except Exception as error:
        raise ResultLost(f"the stored result {location} is of no use here: {error}") from error


def objects(directory: str) -> Iterator[StoredObject]:
    """Yield the objects in a directory of the storage and below; none if there is no such one.

    Raises:
        Exception: Whatever the storage raises: it cannot be read.
    """
    local = _local_path(directory)
    if local is not None:
        for folder, _, names in os.walk(local):
            for name in names:
                file = Path(folder, name)
                with suppress(FileNotFoundError):  # its writer has renamed it
                    status = file.stat()
                    yield StoredObject(str(file), status.st_size, status.st_mtime)
        return
    filesystem, path = _filesystem(directory)
    protocol = directory.partition("://")[0]
    try:
        found = filesystem.find(path, detail=True)
    except FileNotFoundError:
        return
    for name, info in found.items():
        modified = info.get("LastModified") or info.get("mtime") or info.get("created") or 0
        seconds = modified.timestamp() if hasattr(modified, "timestamp") else float(modified)
        yield StoredObject(f"{protocol}://{name.lstrip('/')}", info.get("size") or 0, seconds)


def delete(url: str) -> None:
    """Delete an object, and its directory if that was the last one. Idempotent.

    Raises:
        Exception: Whatever the storage raises: it cannot be written.
    """
    local = _local_path(url)
    if local is not None:
        file = Path(local)
        file.unlink(missing_ok=True)
        with suppress(OSError):  # there are others
            file.parent.rmdir()
        return
    filesystem, path = _filesystem(url)
    with suppress(FileNotFoundError):
        filesystem.rm_file(path)


def _local_path(url: str) -> str | None:
    """Return the path of a local URL, None for others. fsspec decodes no %20, and so nor do we."""
    if url.startswith(LOCAL):
        return url.removeprefix(LOCAL)
    return None if "://" in url else url


def _write_local(path: Path, parts: list[memoryview], *, durable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}")
    try:
        with new.open("xb", buffering=0) as file:
            _write_all(file.fileno(), parts)
            if durable:
                os.fsync(file.fileno())
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if durable:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _write_all(file: int, parts: list[memoryview]) -> None:
    parts = [part for part in parts if part.nbytes]
    first = 0
    while first < len(parts):
        written = os.writev(file, parts[first : first + PIECES_MAX])
        while first < len(parts) and written >= parts[first].nbytes:
            written -= parts[first].nbytes
            first += 1
        if written:
            parts[first] = parts[first][written:]


def _read(url: str, start: int, length: int) -> bytes:
    local = _local_path(url)
    if local is None:
        filesystem, path = _filesystem(url)
        return bytes(filesystem.cat_file(path, start=start, end=start + length))
    with Path(local).open("rb", buffering=0) as file:
        file.seek(start)
        # Where the file is shorter, this ends with it; beyond 2 GB one read may not be enough.
        chunks = []
        while length:
            chunk = file.read(length)
            if not chunk:
                break
            chunks.append(chunk)
            length -= len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _new_object(url: str) -> Any:
    filesystem, path = _filesystem(url)
    try:
        return filesystem.open(path, "wb")
    except FileNotFoundError:
        # Where there are directories; object stores have none, and do not come here.
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        return filesystem.open(path, "wb")


def _filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of an URL, and the path in it."""
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(url)
    return filesystem, path
