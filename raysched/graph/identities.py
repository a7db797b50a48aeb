"""Identities of task runs: the digest of the inputs, and which of those with equal inputs it is."""

from collections.abc import Hashable, Sequence
from hashlib import blake2b

from raysched.model.ids import IDENTITY_BYTES, split_identities
from raysched.model.options import TaskSpec


class Identities:
    """Tells equal calls of one flow run apart, in the order in which they are recorded.

    Inputs are digested with their task's label, so equal ones come from tasks of one name. A map
    over distinct elements costs nothing here until another call of a task of that name comes: a
    million entries would take 150 MB.
    """

    def __init__(self) -> None:
        self._occurrences: dict[bytes, int] = {}
        self._named: set[str] = set()
        self._maps: dict[str, bytearray] = {}

    def of(self, spec: TaskSpec, inputs: bytes) -> bytes:
        """Return the identity of the next call with these inputs.

        Args:
            spec: The task.
            inputs: Digest of the inputs (`IDENTITY_BYTES` bytes).
        """
        self._named.add(spec.name)
        if self._maps:
            self._count_map(spec.name)
        occurrence = self._occurrences.get(inputs, 0)
        self._occurrences[inputs] = occurrence + 1
        if not occurrence:
            return inputs
        return blake2b(inputs, digest_size=IDENTITY_BYTES, salt=occurrence.to_bytes(8)).digest()

    def of_map(
        self, spec: TaskSpec, inputs: bytearray, columns: Sequence[Sequence[Hashable]]
    ) -> bytearray:
        """Return the identities of the members of a map, in one buffer.

        Args:
            spec: The task.
            inputs: Digests of their inputs, in one buffer.
            columns: The elements that were digested.
        """
        if spec.name not in self._named and any(map(_are_distinct, columns)):
            self._named.add(spec.name)
            self._maps[spec.name] = inputs
            return inputs
        return bytearray().join(self.of(spec, each) for each in split_identities(inputs))

    def _count_map(self, name: str) -> None:
        inputs = self._maps.pop(name, None)
        if inputs is not None:
            self._occurrences.update(dict.fromkeys(split_identities(inputs), 1))


def _are_distinct(column: Sequence[Hashable]) -> bool:
    # Equal ones of different types, as 1 and True, only cost the quick way.
    return isinstance(column, range) or len(set(column)) == len(column)
