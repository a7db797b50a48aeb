"""Watch prices in a shop whose server is busy now and then, and tell what fits the budget.

What it shows: retries with growing, jittered delays for failures that pass, and none for those
that will not (`retry_condition_fn`); a hook that is called when a task run has failed for good;
log records of tasks, by `get_run_logger` and by `print` (`log_prints`); and a flow that goes on
without what it could not get.

How to run, after `pip install -e .`:

    raysched run examples/price_watch.py
    raysched run examples/price_watch.py --param busy=9
    raysched run examples/price_watch.py --params-json '{"budgets": {"tea": 4.0, "coffee": 9.5}}'
    python examples/price_watch.py

What you will see: the example starts a small web server of its own that answers the first two
requests for each item with `503 Service Unavailable`. The price of each item arrives at the third
attempt. Saffron is not sold: its task run fails without a retry, its comparison ends as
`UPSTREAM_FAILED`, and the flow completes without it. With `busy=9` all retries run out. Tasks find
the server on 127.0.0.1, so run this one on one machine.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import quote

from pydantic import NonNegativeInt

from raysched import (
    State,
    Task,
    TaskRun,
    exponential_backoff,
    flow,
    get_run_logger,
    task,
    unmapped,
)

BUDGETS = {"coffee": Decimal(9), "tea": Decimal(4), "cocoa": Decimal(6), "saffron": Decimal(20)}


class ShopBusy(Exception):
    """The shop could not answer now, but may in a moment."""


class NotSold(Exception):
    """The shop does not know the item."""


def may_pass(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again can help: the shop was busy, or the network failed."""
    return isinstance(state.result(raise_on_failure=False), ShopBusy | OSError)


def tell_the_buyer(_task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """Called once for each item, after the last attempt."""
    get_run_logger().warning("%s: no price, %s", task_run.name, state.message)


@task(
    retries=4,
    retry_delay_seconds=exponential_backoff(backoff_factor=0.2),
    retry_jitter_factor=0.5,
    retry_condition_fn=may_pass,
    on_failure=[tell_the_buyer],
    task_run_name="price-of-{item}",
)
def fetch_price(item: str, shop: str) -> Decimal:
    """The price of an item in euros."""
    with closing(HTTPConnection(shop, timeout=5)) as connection:
        connection.request("GET", f"/{quote(item)}")
        reply = connection.getresponse()
        body = reply.read()
    if reply.status == HTTPStatus.NOT_FOUND:
        raise NotSold(f"the shop does not sell {item}")
    if reply.status != HTTPStatus.OK:
        raise ShopBusy(f"the shop answered {reply.status} {reply.reason}")
    price = Decimal(json.loads(body)["euros"])
    get_run_logger().info("%s costs %s euros", item, price)
    return price


@task(log_prints=True)
def compare(item: str, price: Decimal, budget: Decimal) -> bool:
    """Whether the price fits the budget."""
    print(f"{item}: {price} of {budget} euros, {'buy' if price <= budget else 'too expensive'}")
    return price <= budget


@flow
def price_watch(
    budgets: dict[str, Decimal] = BUDGETS,
    busy: NonNegativeInt = 2,
) -> list[str]:
    """Ask for the price of each item and compare it with its budget.

    Args:
        budgets: items and what they may cost in euros.
        busy: how many requests for each item the shop turns away first.

    Returns:
        The items that fit their budget.
    """
    items = list(budgets)
    with open_shop(busy) as shop:
        prices = fetch_price.map(items, unmapped(shop))
        fits = compare.map(items, prices, list(budgets.values()))
        # An item without a price is no reason to forget about the others.
        answers = fits.result(raise_on_failure=False)
    return [item for item, answer in zip(items, answers, strict=True) if answer is True]


@contextmanager
def open_shop(busy: int) -> Iterator[str]:
    """A shop on this machine, as `host:port`; it turns the first requests for each item away."""
    prices = {"coffee": "8.49", "tea": "4.20", "cocoa": "5.75"}
    seen: Counter[str] = Counter()
    lock = Lock()

    class Shop(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            item = self.path.removeprefix("/")
            with lock:
                seen[item] += 1
                turned_away = seen[item] <= busy
            if item not in prices:
                self.send_error(HTTPStatus.NOT_FOUND)
            elif turned_away:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            else:
                self.send_response(HTTPStatus.OK)
                self.end_headers()
                self.wfile.write(json.dumps({"euros": prices[item]}).encode())

        def log_message(self, *args: object) -> None:
            """Keep quiet: the tasks say what happens."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


if __name__ == "__main__":
    print("Buy:", ", ".join(price_watch()))
