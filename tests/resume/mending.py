"""A flow that fails, and the same one mended."""

BROKEN = """
from common import *

@task
def load(n):
    ran()
    return n

@task
def parse(n):
    ran()
    if n == 3:
        raise ValueError("cannot parse 3")
    return 2 * n

@task
def total(numbers):
    ran()
    return sum(numbers)

@flow
def nightly(n: int = 6):
    return total(parse.map(load.map(range(n))))

if __name__ == "__main__":
    nightly()
"""
MENDED = BROKEN.replace('raise ValueError("cannot parse 3")', "return 600")
