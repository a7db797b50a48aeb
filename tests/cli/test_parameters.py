import json
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from raysched.cli.parameters import describe_parameters, read_parameters
from raysched.errors import ParameterError

Month = Annotated[str, Field(pattern=r"^\d{4}$")]


def flow(  # noqa: PLR0913, PLR0917 - one of each kind
    name: str,
    month: Month,
    number: int,
    price: Decimal,
    either: int | str,
    anything: Any,
    bare: "NotThere",  # type: ignore[name-defined]  # noqa: F821 - cannot be evaluated
) -> int:
    return 0


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("number=3", 3),
        ("number=[1, 2]", [1, 2]),
        ("price=0.10", 0.1),
        ("bare=true", True),
        ("bare=yes", "yes"),
        ('bare={"a": null}', {"a": None}),
        ("bare=", ""),
        ("bare=a=b", "a=b"),
        ("unknown=1", 1),
        # Text that happens to be JSON stays text where only text fits.
        ("name=007", "007"),
        ("name=7", "7"),
        ("name=null", "null"),
        ("month=2026", "2026"),
        ('name="quoted"', "quoted"),
        ("either=7", 7),
        ("anything=7", 7),
    ],
)
def test_value_is_json_if_it_is_some_and_fits(pair: str, value: object) -> None:
    name = pair.partition("=")[0]
    assert read_parameters(flow, [pair], None) == {name: value}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_json_comes_back_as_it_was(value: object) -> None:
    assert read_parameters(flow, [f"bare={json.dumps(value)}"], None) == {"bare": value}


def test_document_is_overruled_by_pairs(tmp_path: Path) -> None:
    file = tmp_path / "parameters.json"
    file.write_text('{"name": "a", "number": 1}', encoding="utf-8")
    expected = {"name": "a", "number": 2}
    assert read_parameters(flow, ["number=2"], f"@{file}") == expected
    assert read_parameters(flow, ["number=2"], file.read_text(encoding="utf-8")) == expected


@pytest.mark.parametrize(
    ("pairs", "document", "message"),
    [
        (["number"], None, "name=value"),
        (["=3"], None, "name=value"),
        (["number=1", "number=2"], None, "number is given twice"),
        ([], "{", "is no JSON"),
        ([], "[1]", "must be a JSON object"),
        ([], "@no/such/file.json", "no/such/file.json"),
    ],
)
def test_bad_input_is_named(pairs: list[str], document: str | None, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        read_parameters(flow, pairs, document)


def test_signature_is_described() -> None:
    def nightly(day: str, *, limit: int = 3) -> None: ...

    assert describe_parameters(nightly, "nightly") == "nightly(day: str, *, limit: int = 3) -> None"
