"""The rules of Prefect 3 for `.map`."""

import io
from collections.abc import Iterator
from typing import Any

import pytest

from face.around import ignore
from face.around import in_flow as mapped
from raysched import (
    FutureError,
    MapError,
    ParameterError,
    SerializationError,
    TaskFuture,
    TaskFutureList,
    quote,
    task,
    unmapped,
)


@task
def pair(a: Any, b: Any = "default") -> tuple[Any, Any]:
    return a, b


@task
def double(x: int) -> int:
    return 2 * x


@task
def numbers(n: int) -> list[int]:
    return list(range(n))


@task
def fail(x: int) -> int:
    raise ValueError(x)


def generate() -> Iterator[int]:
    yield from (1, 2)


class TestWhatIsMapped:
    @pytest.mark.parametrize(
        ("argument", "elements"),
        [
            ([1, 2], [1, 2]),
            ((1, 2), [1, 2]),
            (range(1, 3), [1, 2]),
            ({"k": 1, "l": 2}, ["k", "l"]),
            ({1}, [1]),
            (b"ab".split(b"x"), [b"ab"]),
        ],
        ids=["list", "tuple", "range", "dict", "set", "bytes in a list"],
    )
    def test_iterables(self, argument: Any, elements: list[Any]) -> None:
        result = mapped(lambda: pair.map(argument))
        assert result == [(element, "default") for element in elements]

    def test_generators(self) -> None:
        assert mapped(lambda: double.map(generate())) == [2, 4]

    @pytest.mark.parametrize("scalar", ["text", b"bytes", 3, None, 1.5])
    def test_scalars_go_to_every_run(self, scalar: Any) -> None:
        assert mapped(lambda: pair.map([1, 2], scalar)) == [(1, scalar), (2, scalar)]

    def test_open_files_are_not_iterated(self) -> None:
        with pytest.raises(MapError, match="nothing to iterate over"):
            mapped(lambda: pair.map(io.StringIO("a\nb")))

    def test_iterable_defaults_are_not_mapped(self) -> None:
        @task
        def count(x: int, among: tuple[int, ...] = (1, 2, 3)) -> int:
            return among.count(x)

        assert mapped(lambda: count.map([1, 5])) == [1, 0]

    def test_several_side_by_side(self) -> None:
        assert mapped(lambda: pair.map([1, 2], b=["x", "y"])) == [(1, "x"), (2, "y")]

    def test_unmapped(self) -> None:
        assert mapped(lambda: pair.map([1, 2], unmapped([3]))) == [(1, [3]), (2, [3])]

    def test_unmapped_future(self) -> None:
        result = mapped(lambda: pair.map([1, 2], unmapped(numbers.submit(2))))
        assert result == [(1, [0, 1]), (2, [0, 1])]

    def test_quoted_elements(self) -> None:
        assert mapped(lambda: double.map(quote([1, 2]))) == [2, 4]

    def test_keyword_arguments_of_the_function(self) -> None:
        @task
        def collect(**given: Any) -> dict[str, Any]:
            return given

        assert mapped(lambda: collect.map(a=[1, 2], b="x")) == [
            {"a": 1, "b": "x"},
            {"a": 2, "b": "x"},
        ]

    def test_variadic_positional_arguments(self) -> None:
        @task
        def collect(*given: Any) -> tuple[Any, ...]:
            return given

        # As in Prefect, *args is one iterable: of the arguments.
        assert mapped(lambda: collect.map([1, 2], [3, 4])) == [(1, 2), (3, 4)]

    def test_positional_only(self) -> None:
        @task
        def minus(x: int, /, y: int = 1) -> int:
            return x - y

        assert mapped(lambda: minus.map([5, 6])) == [4, 5]
        assert mapped(lambda: minus.map(double.map([5, 6]), y=2)) == [8, 10]


class TestFutures:
    def test_as_elements(self) -> None:
        assert mapped(lambda: double.map([double.submit(1), 5])) == [4, 10]

    def test_of_a_map_item_by_item(self) -> None:
        assert mapped(lambda: double.map(double.map([1, 2, 3]))) == [4, 8, 12]

    def test_of_a_map_beside_a_list(self) -> None:
        assert mapped(lambda: pair.map(double.map([1, 2]), ["x", "y"])) == [(2, "x"), (4, "y")]

    def test_of_a_slice_of_a_map(self) -> None:
        def body() -> Any:
            doubled = double.map(range(6))
            return double.map(doubled[2:4]), double.map(doubled[::-2]), double.map(doubled[5:])

        assert mapped(body) == ([8, 12], [20, 12, 4], [20])

    def test_unmapped_map_is_a_list(self) -> None:
        @task
        def total(values: list[int], plus: int) -> int:
            return sum(values) + plus

        assert mapped(lambda: total.map(unmapped(double.map([1, 2])), [0, 1])) == [6, 7]

    def test_as_the_iterable_its_value_is_mapped(self) -> None:
        assert mapped(lambda: double.map(numbers.submit(3))) == [0, 2, 4]

    def test_as_the_iterable_with_a_value_that_is_none(self) -> None:
        with pytest.raises(MapError, match="nothing to iterate over"):
            mapped(lambda: double.map(double.submit(1)))

    def test_as_the_iterable_that_failed(self) -> None:
        with pytest.raises(ValueError, match="7"):
            mapped(lambda: double.map(fail.submit(7)))

    def test_failures_stop_only_their_followers(self) -> None:
        @task
        def odd(x: int) -> int:
            if x % 2:
                return x
            raise ValueError(x)

        def body() -> list[str]:
            futures = double.map(odd.map(range(4)))
            results = futures.result(raise_on_failure=False)
            return [type(result).__name__ for result in results]

        assert mapped(body) == ["UpstreamFailed", "int", "UpstreamFailed", "int"]


class TestResult:
    def test_is_a_list_of_futures(self) -> None:
        def body() -> None:
            futures = double.map([1, 2, 3])
            assert isinstance(futures, TaskFutureList)
            assert len(futures) == 3
            assert [future.key for future in futures] == ["double[0]", "double[1]", "double[2]"]
            assert isinstance(futures[-1], TaskFuture)
            assert futures[-1] == list(futures)[2]
            with pytest.raises(IndexError, match="no future 3 in a list of 3"):
                ignore(futures[3])

        mapped(body)

    def test_result_keeps_the_order(self) -> None:
        assert mapped(lambda: double.map(range(50)).result()) == [2 * n for n in range(50)]

    def test_empty(self) -> None:
        def body() -> Any:
            futures = double.map([])
            assert len(futures) == 0
            assert futures.result() == []
            assert futures.wait()
            return double.map(futures), pair.submit(futures)

        assert mapped(body) == ([], ([], "default"))

    def test_states(self) -> None:
        def body() -> list[bool]:
            return [state.is_completed() for state in double.map([1, "x"], return_state=True)]

        assert mapped(body) == [True, True]

    def test_raises_the_first_failure(self) -> None:
        with pytest.raises(ValueError, match="1"):
            mapped(lambda: fail.map([1]).result())

    def test_failures_caught_as_a_whole_are_handled(self) -> None:
        def body() -> str:
            try:
                fail.map([1, 2, 3]).result()
            except ValueError:
                return "caught"
            return "nothing raised"

        assert mapped(body) == "caught"


class TestMistakes:
    def test_unequal_lengths(self) -> None:
        with pytest.raises(MapError, match=r"'pair'.*unequal length: a has 2, b has 3.*unmapped"):
            mapped(lambda: pair.map([1, 2], [1, 2, 3]))

    def test_nothing_iterable(self) -> None:
        with pytest.raises(MapError, match=r"'pair'.*nothing to iterate over.*use \.submit"):
            mapped(lambda: pair.map(1, "text"))

    def test_all_unmapped(self) -> None:
        with pytest.raises(MapError, match="nothing to iterate over"):
            mapped(lambda: pair.map(unmapped([1])))

    def test_unknown_argument(self) -> None:
        with pytest.raises(ParameterError, match=r"'pair'.*unexpected keyword argument 'c'"):
            mapped(lambda: pair.map([1], c=[2]))

    def test_element_that_cannot_be_pickled(self) -> None:
        with pytest.raises(SerializationError, match=r"task 'pair': argument 'a'"):
            mapped(lambda: pair.map([1, generate()]))

    def test_outside_a_flow(self) -> None:
        with pytest.raises(FutureError, match="only works in a flow"):
            ignore(pair.map([1]))
