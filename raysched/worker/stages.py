"""The task runs of one group in a unit: their function, and the arguments of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from raysched.define.context import Surroundings
from raysched.define.skipping import PredicateRaised
from raysched.define.successes import Successes
from raysched.errors import SerializationError, TaskRunSkipped
from raysched.graph.payload import ATOMS, load_call
from raysched.model.ids import task_run_key
from raysched.results.envelope import Parts, decode
from raysched.worker.code import CallArguments, NamedArguments, TaskCode
from raysched.worker.extensions import participation
from raysched.worker.objects import NotMade
from raysched.worker.protocol import (
    FAILURE,
    INLINE,
    LARGE,
    LOCAL,
    RECORDED,
    STORED,
    SUCCESSES,
    SlotValue,
    Stage,
    Unit,
)
from raysched.worker.skeletons import skeleton, slots_in
from raysched.worker.stored import StoredInputs, header_of

Local: TypeAlias = Mapping[int, Parts]
"""Encoded values of items of this unit that later items need, by position."""


class StageRun:
    """A stage while its unit runs.

    Args:
        code: The user's function.
        unit: The unit.
        stage: The stage.
        large: The lists of large values that came with the unit.
        local: Where the values of earlier items are found.
        stored: The values that were read before.

    Attributes:
        code: The user's function.
        surroundings: What its attempts have in common.
        part: What takes part in its items, or None.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - where values come from, each once
        self,
        code: TaskCode,
        unit: Unit,
        stage: Stage,
        large: Sequence[Any],
        local: Local,
        stored: StoredInputs,
    ) -> None:
        self.code = code
        header = header_of(unit.header)
        self.surroundings = Surroundings(
            header.run_id,
            header.run_name,
            header.flow_name,
            header.parameters,
            header.tags,
            stage.task_name,
            stage.tags,
            header.traceparent,
            header.tracestate,
            header.execution,
            header.extension,
            header.within,
        )
        self.part = participation(unit.header) if header.extension else None
        self._stage = stage
        self._large = large
        self._local = local
        self._stored = stored
        self._names: Sequence[str] = ()
        self._static: Mapping[str, Any] | None = None

    def number(self, place: int) -> int:
        """Return the position of a task run among those of its name."""
        return self._stage.numbers[place]

    def attempt(self, place: int) -> int:
        """Return the number of its attempt, from 1."""
        return self._stage.attempts[place]

    def arguments(self, place: int) -> CallArguments:
        """Decode the arguments of a task run: fresh copies, whatever others got.

        Raises:
            SerializationError: An argument cannot be unpickled here.
            TaskRunSkipped: An argument does not meet its `when`.
            Exception: The user's: of the factory of a `once_per_worker`, or of a predicate.
        """
        try:
            return self._decoded(place)
        except (SerializationError, TaskRunSkipped):
            raise
        except (NotMade, PredicateRaised) as error:
            failure = error.__cause__
        except Exception as error:
            key = task_run_key(self._stage.task_name, self.number(place))
            message = (
                f"an argument of {key} cannot be unpickled on the worker: "
                f"{type(error).__name__}: {error}. Its class has to be importable there and to "
                "pickle both ways"
            )
            raise SerializationError(message) from error
        # Not while another one is handled: that would become its context.
        assert failure is not None  # noqa: S101 - see NotMade and PredicateRaised
        raise failure

    def slots_by_parameter(self, place: int) -> Mapping[str, frozenset[int]]:
        """Return the numbers of the slots whose values are in the arguments of a task run.

        By the name of the parameter; none of the user's code is called.
        """
        stage = self._stage
        if not stage.slots:
            return {}
        if stage.mapped:
            names, values = skeleton(stage.shared)
            elements = (None,) * len(names) if stage.columns else skeleton(stage.payloads[place])
            values.update(zip(names, elements, strict=True))
            call = self.code.by_parameter(values)
        else:
            call = skeleton(stage.payloads[place])
        arguments = NamedArguments(self.code.signature, call)
        return {name: slots_in(arguments[name]) for name in arguments}

    def _decoded(self, place: int) -> CallArguments:
        stage = self._stage
        if not stage.mapped:
            args, kwargs = load_call(stage.payloads[place], self._slots(place))
            return args, kwargs
        values = self._static_arguments(place)
        if stage.columns:
            for name, column in zip(self._names, stage.columns, strict=True):
                values[name] = column[place]
        else:
            row = load_call(stage.payloads[place], self._slots(place))
            values.update(zip(self._names, row, strict=True))
        return self.code.by_parameter(values)

    def _static_arguments(self, place: int) -> dict[str, Any]:
        if self._static is not None:
            return dict(self._static)
        names, static = load_call(self._stage.shared, self._slots(place))
        self._names = names
        if all(type(value) in ATOMS for value in static.values()):
            # Nobody can change these: no need to decode them for each.
            self._static = static
            return dict(static)
        return static  # type: ignore[no-any-return]

    def _slots(self, place: int) -> Callable[[int], Any]:
        slots = self._stage.slots

        def value(number: int) -> Any:
            return self._slot_value(slots[place][number])

        return value

    def _slot_value(self, slot: SlotValue) -> Any:
        kind, content = slot
        if kind in (INLINE, FAILURE):
            return decode(content)
        if kind in (LOCAL, LARGE):
            return decode(self._parts(slot))
        if kind in (STORED, RECORDED):
            return self._stored.take(content if kind == STORED else content[0])
        if kind == SUCCESSES:
            values, failures = content
            return Successes(map(self._slot_value, values), map(decode, failures))
        return [self._slot_value(element) for element in content]

    def _parts(self, slot: SlotValue) -> Parts:
        kind, content = slot
        if kind == LOCAL:
            return self._local[content]
        argument, position = content
        parts: Parts = self._large[argument][position]
        return parts
