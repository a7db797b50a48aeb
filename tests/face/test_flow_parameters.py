from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, PositiveInt

from raysched import (
    InvalidOption,
    ParameterError,
    flow,
)


class Table(BaseModel):
    rows: int


class TestParameters:
    def test_are_coerced(self) -> None:
        @flow
        def typed(day: date, n: int, path: Path, table: Table, names: tuple[str, ...] = ()) -> Any:
            return day, n, path, table, names

        result = typed("2026-11-20", "3", path="x", table={"rows": 1}, names=["a"])  # type: ignore[call-overload]
        assert result == (date(2026, 11, 20), 3, Path("x"), Table(rows=1), ("a",))

    @pytest.mark.parametrize(
        ("args", "kwargs", "message"),
        [
            (("x",), {}, r"flow 'typed': parameter 'n': .*valid integer.*got 'x'"),
            ((0,), {}, r"parameter 'n': .*greater than 0"),
            ((), {}, r"flow 'typed': missing a required argument: 'n'"),
            ((1,), {"tabel": None}, r"'tabel'.*did you mean 'table'"),
            ((1,), {"table": {"rows": "many"}}, r"parameter \"table\['rows'\]\": .*integer"),
            ((1, None, 3), {}, r"too many positional arguments"),
        ],
        ids=["type", "range", "missing", "unknown", "nested", "too many"],
    )
    def test_mistakes_are_found_before_anything_runs(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], message: str
    ) -> None:
        ran: list[int] = []

        @flow
        def typed(n: PositiveInt, table: Table | None = None) -> None:
            ran.append(n)

        with pytest.raises(ParameterError, match=message):
            typed(*args, **kwargs)
        assert ran == []

    def test_annotated(self) -> None:
        @flow
        def typed(months: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)) -> Any:
            return months

        assert typed([2]) == (2,)  # type: ignore[call-overload]
        with pytest.raises(ParameterError, match="at least 1 item"):
            typed(())

    def test_may_stay_as_they_are(self) -> None:
        @flow(validate_parameters=False)
        def untyped(n: int) -> Any:
            return n

        assert untyped("3") == "3"  # type: ignore[call-overload]

    def test_types_unknown_to_pydantic(self) -> None:
        class Odd:
            pass

        @flow
        def typed(odd: Odd) -> bool:
            return isinstance(odd, Odd)

        assert typed(Odd())

    def test_variadic(self) -> None:
        @flow
        def typed(*args: int, **kwargs: float) -> Any:
            return args, kwargs

        assert typed("1", x="2") == ((1,), {"x": 2.0})  # type: ignore[call-overload]

    def test_positional_only(self) -> None:
        @flow
        def typed(x: int, /, y: int = 1) -> int:
            return x + y

        assert typed("1") == 2  # type: ignore[call-overload]

    def test_annotations_that_cannot_be_read(self) -> None:
        @flow
        def typed(x: "Unknown") -> None:  # type: ignore[name-defined] # noqa: F821
            pass

        with pytest.raises(ParameterError, match="validate_parameters=False"):
            typed(1)

    def test_names_that_pydantic_models_do_not_allow(self) -> None:
        @flow
        def typed(_x: int, copy: int, model_config: int) -> int:
            return _x + copy + model_config

        assert typed("1", 2, model_config=3) == 6  # type: ignore[call-overload]

    def test_cannot_take_our_names(self) -> None:
        with pytest.raises(InvalidOption, match=r"cannot be named 'wait_for'"):
            flow(lambda wait_for: wait_for)
