"""A month's invoices: usage out of a database, one invoice for each customer, each sent once.

What it shows: maps that follow each other customer by customer, retries that are safe because each
invoice carries an idempotency key, and what a failure looks like when everything downstream hangs
on one query.

How to run, after `pip install -e ".[examples]"`:

    raysched run examples/billing/flow.py
    raysched run examples/billing/flow.py --param customers=100 --param month=2026-09
    raysched run examples/billing/flow.py --param broken=true
    python examples/billing/flow.py

What you will see: a database of usage is made in `billing-demo` below the current directory, and
the invoices land in `billing-demo/outbox`. Run it again: no customer gets a second letter. With
`broken=true` someone has renamed the usage table: one task run fails with `no such table: usage`,
and the invoices and letters that only followed end as `UPSTREAM_FAILED` and point at it.
"""

import json
import sqlite3
import uuid
from contextlib import closing
from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from random import Random
from typing import Annotated

from pydantic import PositiveInt, StringConstraints

from raysched import flow, get_run_logger, task, unmapped

Month = Annotated[str, StringConstraints(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]

# What one unit costs in euros, and how many units a month are free.
PRICES = {
    "requests": (Decimal("0.0004"), 100_000),
    "gigabyte_days": (Decimal("0.005"), 200),
    "support_hours": (Decimal(85), 0),
}
TAX = Decimal("0.19")
CENT = Decimal("0.01")


@dataclass(frozen=True)
class Customer:
    """Someone who pays."""

    id: int
    name: str


@dataclass(frozen=True)
class Line:
    """What one meter adds to an invoice, before tax."""

    meter: str
    units: int
    euros: Decimal


@dataclass(frozen=True)
class Invoice:
    """What one customer owes for one month; `key` is its idempotency key."""

    key: str
    number: str
    customer: str
    lines: list[Line]
    tax: Decimal
    total: Decimal


@task
def list_customers(database: Path) -> list[Customer]:
    """Everyone who has an account."""
    with closing(connect(database)) as db:
        rows = db.execute("SELECT id, name FROM customers ORDER BY id").fetchall()
    return [Customer(*row) for row in rows]


@task
def read_usage(database: Path, month: str) -> dict[int, dict[str, int]]:
    """Units that each customer used of each meter in the month."""
    with closing(connect(database)) as db:
        rows = db.execute(
            "SELECT customer, meter, SUM(units) FROM usage WHERE substr(day, 1, 7) = ?"
            " GROUP BY customer, meter",
            (month,),
        ).fetchall()
    usage: dict[int, dict[str, int]] = {}
    for customer, meter, units in rows:
        usage.setdefault(customer, {})[meter] = units
    return usage


@task(task_run_name="invoice-{customer.id}")
def make_invoice(customer: Customer, usage: dict[int, dict[str, int]], month: str) -> Invoice:
    """The invoice of one customer, each line rounded to the cent."""
    used = usage.get(customer.id, {})
    lines = []
    for meter, (price, free) in PRICES.items():
        units = max(0, used.get(meter, 0) - free)
        if units:
            lines.append(Line(meter, units, (units * price).quantize(CENT, ROUND_HALF_UP)))
    net = sum((line.euros for line in lines), Decimal(0))
    tax = (net * TAX).quantize(CENT, ROUND_HALF_UP)
    return Invoice(
        # The same customer and month give the same key, however often the invoice is made.
        key=str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://billing.example/{customer.id}/{month}")),
        number=f"{month}-{customer.id:05}",
        customer=customer.name,
        lines=lines,
        tax=tax,
        total=net + tax,
    )


@task(retries=3, retry_delay_seconds=[1, 5, 30], tags={"mail"})
def send(invoice: Invoice, outbox: Path) -> bool:
    """Put the invoice into the outbox, unless one with its key is there.

    Safe to try again at any moment: a letter appears whole or not at all, and the first one stays.

    Returns:
        Whether it was sent now.
    """
    draft = outbox / f"{uuid.uuid4()}.draft"
    draft.write_text(json.dumps(asdict(invoice), default=str, indent=2))
    try:
        (outbox / f"{invoice.key}.json").hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


@task
def close_month(invoices: list[Invoice], sent: list[bool]) -> str:
    """The month in one sentence."""
    total = sum((invoice.total for invoice in invoices), Decimal(0))
    return (
        f"{len(invoices)} invoices over {total:,} euros: {sum(sent)} sent, "
        f"{len(sent) - sum(sent)} had been sent before"
    )


@flow
def billing(
    customers: PositiveInt = 20,
    month: Month = "2026-10",
    folder: Path = Path("billing-demo"),
    *,
    broken: bool = False,
) -> str:
    """Invoice a month's usage.

    Args:
        customers: how many customers the demo has.
        month: the month to invoice, such as 2026-10.
        folder: directory for the demo's database and outbox.
        broken: whether someone has renamed the table of usage.

    Returns:
        How many invoices over how much money were sent.
    """
    folder = folder.resolve()  # a task may run in another working directory
    outbox = folder / "outbox"
    outbox.mkdir(parents=True, exist_ok=True)
    database = make_demo_database(folder / "usage.db", customers, month, broken=broken)

    usage = read_usage.submit(database, month)
    invoices = make_invoice.map(list_customers(database), unmapped(usage), unmapped(month))
    sent = send.map(invoices, unmapped(outbox))
    summary = close_month.submit(invoices, sent).result()
    get_run_logger().info("%s, in %s", summary, outbox)
    return summary


def connect(database: Path) -> sqlite3.Connection:
    """A connection that cannot write, and that does not make a database that is missing."""
    return sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)


DAILY_MEAN = {"requests": 9_000, "gigabyte_days": 12, "support_hours": 0.4}
FIRST = ["Blue", "Copper", "Green", "Silver", "Northern", "Little", "Quiet", "Swift"]
SECOND = ["Bakery", "Harbour", "Orchard", "Foundry", "Observatory", "Brewery", "Press", "Garage"]


def make_demo_database(path: Path, customers: int, month: str, *, broken: bool) -> Path:
    """Customers and their usage: the same each time, so that a second run finds nothing new."""
    names, usage = [], []
    for customer in range(1, customers + 1):
        random = Random(customer)
        names.append((customer, f"{random.choice(FIRST)} {random.choice(SECOND)}"))
        for day in range(1, 29):
            for meter, mean in DAILY_MEAN.items():
                units = int(random.expovariate(1 / mean))
                usage.append((customer, f"{month}-{day:02}", meter, units))
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        db.execute("CREATE TABLE usage (customer INT, day TEXT, meter TEXT, units INT)")
        db.executemany("INSERT INTO customers VALUES (?, ?)", names)
        db.executemany("INSERT INTO usage VALUES (?, ?, ?, ?)", usage)
        if broken:
            db.execute("ALTER TABLE usage RENAME TO usage_new")
    return path


if __name__ == "__main__":
    print(billing())
