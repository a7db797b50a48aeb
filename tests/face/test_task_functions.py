import asyncio
import functools
from typing import Any

from face.around import ignore, in_flow
from raysched import (
    flow,
    task,
)


@task
def add(x: Any, y: Any = 10) -> int:
    return int(x + y)


@task
def fail(message: str = "no") -> int:
    raise ValueError(message)


class Shop:
    def __init__(self, tax: int) -> None:
        self.tax = tax

    @task
    def price(self, net: int) -> int:
        return net + self.tax

    @task
    @staticmethod
    def double(net: int) -> int:
        return 2 * net

    @staticmethod
    @task
    def triple(net: int) -> int:
        return 3 * net

    @task
    @classmethod
    def name(cls) -> str:
        return cls.__name__


def class_name(shop: Any) -> Any:
    """Call the class method."""
    return shop.name()


class TestKindsOfFunctions:
    def test_methods(self) -> None:
        shop = Shop(5)

        def body() -> Any:
            return [shop.price(1), shop.price.submit(2), shop.price.map([3, 4])]

        assert in_flow(body) == [6, 7, [8, 9]]
        assert shop.price(1) == 6

    def test_static_methods(self) -> None:
        shop = Shop(0)

        def body() -> Any:
            return [Shop.double(2), shop.double.submit(3), Shop.triple(2), shop.triple.submit(1)]

        assert in_flow(body) == [4, 6, 6, 3]

    def test_class_methods(self) -> None:
        assert in_flow(lambda: [class_name(Shop), class_name(Shop(1))]) == ["Shop", "Shop"]

    def test_methods_with_options(self) -> None:
        assert in_flow(lambda: Shop(1).price.with_options(name="cost")(1)) == 2

    def test_closures(self) -> None:
        offset = 100

        @task
        def shift(x: int) -> int:
            return x + offset

        assert in_flow(lambda: shift(1)) == 101

    def test_lambdas(self) -> None:
        assert in_flow(lambda: task(lambda x: x * 2)(21)) == 42

    def test_partials(self) -> None:
        assert in_flow(lambda: task(functools.partial(max, 3), name="most")(2)) == 3

    def test_builtins(self) -> None:
        assert in_flow(lambda: task(len)([1, 2])) == 2

    def test_variadic(self) -> None:
        @task
        def gather(*args: int, **kwargs: int) -> tuple[Any, Any]:
            return args, kwargs

        assert in_flow(lambda: gather(1, 2, a=3)) == ((1, 2), {"a": 3})

    def test_positional_only(self) -> None:
        @task
        def minus(x: int, /, y: int) -> int:
            return x - y

        assert in_flow(lambda: minus(5, y=3)) == 2

    def test_keeps_the_functions_look(self) -> None:
        assert (add.__name__, add.name, add.fn(1)) == ("add", "add", 11)

    def test_tasks_are_found_by_name_when_pickled(self) -> None:
        import pickle

        assert pickle.loads(pickle.dumps(add)) is add

    def test_tasks_by_value_keep_their_options(self) -> None:
        import cloudpickle

        @task(retries=4, name="other")
        def local() -> int:
            return 7

        copy = cloudpickle.loads(cloudpickle.dumps(local))
        assert (copy.name, copy.spec.retry.retries, copy()) == ("other", 4, 7)


class TestTasksInTasks:
    def test_call_submit_and_map(self) -> None:
        @task
        def outer(n: int) -> list[int]:
            return [add(n), add.submit(n, 0).result(), *add.map(range(n)).result()]

        assert in_flow(lambda: outer(3)) == [13, 3, 10, 11, 12]

    def test_flow_in_a_task(self) -> None:
        @flow
        def inner(n: int) -> int:
            return add(n)

        @task
        def outer(n: int) -> int:
            return inner(n)

        assert in_flow(lambda: outer(3)) == 13

    def test_the_flow_goes_on_after_it(self) -> None:
        @task
        def outer() -> int:
            return add(1)

        assert in_flow(lambda: (outer(), add(2), outer.submit().result())) == (11, 12, 11)

    def test_unhandled_failure_inside_fails_the_outer_one(self) -> None:
        @task
        def outer() -> int:
            ignore(fail.submit("inner"))
            return 1

        assert in_flow(lambda: outer(return_state=True).is_failed())


class TestAsync:
    def test_call_returns_a_coroutine(self) -> None:
        @task
        async def later(x: int) -> int:
            await asyncio.sleep(0)
            return x

        @flow
        async def around() -> list[int]:
            return [await later(1), *await asyncio.gather(*(later(n) for n in range(3)))]

        assert asyncio.run(around()) == [1, 0, 1, 2]

    def test_outside_a_flow_is_the_function(self) -> None:
        @task
        async def later(x: int) -> int:
            return x

        assert asyncio.run(later(3)) == 3

    def test_async_tasks_in_sync_flows(self) -> None:
        @task
        async def later(x: int) -> int:
            await asyncio.sleep(0)
            return x

        assert in_flow(lambda: later.map([1, 2]).result()) == [1, 2]
        assert in_flow(lambda: later.submit(1).result()) == 1

    def test_sync_tasks_in_async_flows(self) -> None:
        @flow
        async def around() -> list[int]:
            future = add.submit(1)
            futures = add.map([1, 2])
            return [add(0), await future, *await futures]

        assert asyncio.run(around()) == [10, 11, 11, 12]

    def test_failures_are_raised_at_await(self) -> None:
        @task
        async def broken() -> int:
            raise KeyError("gone")

        @flow
        async def around() -> str:
            try:
                await broken()
            except KeyError:
                return "caught"
            return "nothing raised"

        assert asyncio.run(around()) == "caught"

    def test_return_state(self) -> None:
        @task
        async def later() -> int:
            return 1

        @flow
        async def around() -> int:
            state = await later(return_state=True)
            return state.result()

        assert asyncio.run(around()) == 1

    def test_tasks_of_gathered_calls_are_one_group(self) -> None:
        @task
        async def later(x: int) -> int:
            return x

        @flow
        async def around() -> None:
            await asyncio.gather(*(later(n) for n in range(5)))

        assert [group.size for group in around.plan().groups] == [5]
