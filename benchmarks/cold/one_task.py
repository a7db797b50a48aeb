"""A flow of one task, as a script of its own."""

from raysched import flow, task


@task
def noop(number: int) -> int:
    return number


@flow
def one_task() -> int:
    return noop(0)


if __name__ == "__main__":
    print(one_task())
