"""Flows that go wrong, each in its own way."""

import time

from raysched import Failed, flow, get_run_logger, task, unmapped


@task(owner="data@shop.example", runbook="https://wiki.example/load")
def load(number: int, table: dict[str, int], password: str) -> int:
    get_run_logger().info("loading %d", number)
    if number == 17:
        return table["usage_facts"]
    return number


@task
def tables() -> dict[str, int]:
    return {"usage": 1}


@task
def clean(number: int) -> int:
    return number


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@flow
def nightly(size: int = 20) -> int:
    loaded = load.map(range(size), unmapped(tables.submit()), unmapped("open sesame"))
    return total.submit(clean.map(loaded)).result()


@task(retries=2)
def fetch(url: str) -> str:
    raise ConnectionError(f"{url} refused")


@task
def read(path: str) -> str:
    try:
        return {"a": "b"}[path]
    except KeyError as error:
        raise RuntimeError(f"cannot read <{path}>") from error


@task(timeout_seconds=0.05)
def wait() -> None:
    time.sleep(60)


@task
def show(text: str) -> str:
    return text


@flow
def several() -> None:
    _ = show.submit(fetch.submit("https://a.example"))
    _ = show.map([read.submit("x"), read.submit("y")])
    _ = wait.submit()


@task
def parse(row: int) -> int:
    raise ValueError(f"bad row {row}")


@flow
def alike(size: int = 200) -> None:
    _ = clean.map(parse.map(range(size)))


@task(fallback="nothing")
def optional() -> str:
    raise OSError("the printer is on fire")


@flow
def handled() -> str:
    fetch.with_options(retries=0).submit("https://b.example").result(raise_on_failure=False)
    return optional.submit().result()


@flow
def own() -> None:
    tables()
    raise LookupError("no such month")


@flow
def around() -> None:
    tables()
    several()


@task(max_failures=3)
def brittle(number: int) -> None:
    raise ArithmeticError(f"{number} is odd")


@flow
def stopped(size: int = 40) -> None:
    _ = brittle.map(range(size))


@flow
def interrupted() -> None:
    tables()
    raise KeyboardInterrupt


@flow
def verdict() -> object:
    tables()
    return Failed(message="too few rows")


@flow
def fine() -> int:
    return clean(1)


@flow
def choosing(number: int = 1) -> float:
    return share(number)


@task
def share(number: int) -> float:
    return 1 / number
