"""Tasks that the tests of failures share."""

from typing import Any

from raysched import skip, task


@task
def give(x: Any) -> Any:
    return x


@task
def fail(x: Any = None) -> Any:
    raise ValueError(x)


@task
def skipped(x: Any = None) -> Any:
    skip(f"no data in {x}")


@task
def describe(*values: Any) -> list[str]:
    return [type(v).__name__ if isinstance(v, BaseException) else repr(v) for v in values]
