"""The examples, run as their text says, and what people want of them: files, counts, states."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
RAYSCHED = Path(sysconfig.get_path("scripts")) / "raysched"

PNG = b"\x89PNG\r\n\x1a\n"


FORCED = frozenset({"RAYSCHED_UNIT_SIZE", "RAYSCHED_FUSION"})
"""Settings of the matrix of the semantics, which hold here, too."""


class Desk:
    """A directory to run examples in, as people do, with a home of its own for the runs.

    They run on `backend`, where a test asks for no other.
    """

    def __init__(self, folder: Path, backend: str) -> None:
        self.folder = folder
        self.backend = backend
        kept = {name: value for name, value in os.environ.items() if not is_setting(name)}
        # Threads of linear algebra that wait for a core of a busy machine take seconds.
        calm = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.environment = kept | calm | {"RAYSCHED_HOME": str(folder / "home")}

    def run(self, example: str, *arguments: str, backend: str = "", code: int = 0) -> Any:
        """Runs `raysched run`; returns the flow run with its task runs."""
        options = ("--backend", backend or self.backend, "--json", *arguments)
        run = json.loads(self.call(RAYSCHED, "run", EXAMPLES / example, *options, code=code))
        shown = json.loads(self.call(RAYSCHED, "show", "last", "--json"))
        assert shown["id"] == run["id"]
        return shown

    def script(self, example: str) -> str:
        """Runs the example as a plain script; returns what it prints."""
        return self.call(sys.executable, EXAMPLES / example, RAYSCHED_BACKEND=self.backend)

    def logs(self) -> list[str]:
        records = json.loads(self.call(RAYSCHED, "logs", "last", "--json"))
        return [record["message"] for record in records]

    def call(self, *command: str | Path, code: int = 0, **environment: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Warning" not in done.stderr
        return done.stdout


def is_setting(name: str) -> bool:
    return name == "RAY_ADDRESS" or (name.startswith("RAYSCHED_") and name not in FORCED)


def states(run: Any, task: str) -> dict[str, int]:
    return Counter(one["state"] for one in run["task_runs"] if one["name"] == task)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def desk(tmp_path: Path, request: pytest.FixtureRequest) -> Desk:
    return Desk(tmp_path, request.config.getoption("--backend"))


class TestFlights:
    def test_a_year(self, desk: Desk) -> None:
        run = desk.run("flights/flow.py")
        assert (run["state"], run["tasks"]) == ("COMPLETED", {"COMPLETED": 51})
        report = desk.folder / "flights-report"
        assert "336,776 flights on 365 days" in (report / "report.md").read_text(encoding="utf-8")
        assert (report / "delays.png").read_bytes().startswith(PNG)
        for view in ("date", "airline", "weather"):
            table = read_csv(report / f"{view}.csv")
            assert sum(int(row["flights"]) for row in table) == 336_776

    def test_modules_beside_the_flow_reach_the_workers_of_ray(self, desk: Desk) -> None:
        arguments = ("--param", "months=[2]", "--param", "destinations=1")
        run = desk.run("flights/flow.py", *arguments, backend="ray")
        assert (run["state"], run["tasks"]) == ("COMPLETED", {"COMPLETED": 22})
        names = {one["task_run_name"] for one in run["task_runs"]}
        assert {"summarize-EWR", "summarize-JFK", "summarize-LGA", "delays-by-hour"} < names
        report = desk.folder / "flights-report"
        assert "24,951 flights on 28 days" in (report / "report.md").read_text(encoding="utf-8")
        airports = read_csv(report / "airports.csv")
        assert [row["direction"] for row in airports] == ["from", "from", "from", "to"]


class TestBilling:
    def test_each_invoice_is_sent_once(self, desk: Desk) -> None:
        run = desk.run("billing/flow.py")
        assert (run["state"], run["tasks"]) == ("COMPLETED", {"COMPLETED": 43})
        outbox = desk.folder / "billing-demo" / "outbox"
        sent = {path.name: path.read_bytes() for path in outbox.iterdir()}
        assert len(sent) == 20
        again = desk.script("billing/flow.py")
        assert again.endswith(": 0 sent, 20 had been sent before\n")
        assert {path.name: path.read_bytes() for path in outbox.iterdir()} == sent

    def test_broken_has_one_root(self, desk: Desk) -> None:
        run = desk.run("billing/flow.py", "--param", "broken=true", code=1)
        assert run["state"] == "FAILED"
        assert run["tasks"] == {"COMPLETED": 1, "FAILED": 1, "UPSTREAM_FAILED": 41}
        (root,) = (one for one in run["task_runs"] if one["state"] == "FAILED")
        assert (root["key"], root["attempts"]) == ("read_usage[0]", 1)
        assert root["error"]["type"] == "sqlite3.OperationalError"
        assert root["error"]["message"] == "no such table: usage"
        followed = [one for one in run["task_runs"] if one["state"] == "UPSTREAM_FAILED"]
        assert {tuple(one["roots"]) for one in followed} == {("read_usage[0]",)}
        assert {one["attempts"] for one in followed} == {0}
        assert not list((desk.folder / "billing-demo" / "outbox").iterdir())


class TestPriceWatch:
    @pytest.mark.parametrize("backend", ["inline", "ray"])
    def test_the_third_attempt_gets_the_price(self, desk: Desk, backend: str) -> None:
        run = desk.run("price_watch.py", backend=backend)
        assert (run["state"], run["message"]) == ("COMPLETED", "1 failure handled")
        assert run["tasks"] == {"COMPLETED": 6, "FAILED": 1, "UPSTREAM_FAILED": 1}
        prices = [one for one in run["task_runs"] if one["name"] == "fetch_price"]
        assert {one["task_run_name"]: one["attempts"] for one in prices} == {
            "price-of-coffee": 3,
            "price-of-tea": 3,
            "price-of-cocoa": 3,
            "price-of-saffron": 1,
        }
        assert sorted(desk.logs()) == [
            "cocoa costs 5.75 euros",
            "cocoa: 5.75 of 6 euros, buy",
            "coffee costs 8.49 euros",
            "coffee: 8.49 of 9 euros, buy",
            "price-of-saffron: no price, the shop does not sell saffron",
            "tea costs 4.20 euros",
            "tea: 4.20 of 4 euros, too expensive",
        ]

    def test_retries_run_out(self, desk: Desk) -> None:
        tea = '{"budgets": {"tea": 4.0}, "busy": 9}'
        run = desk.run("price_watch.py", "--params-json", tea)
        price, comparison = run["task_runs"]
        assert (price["state"], price["attempts"]) == ("FAILED", 5)
        assert price["error"]["type"] == "price_watch.ShopBusy"
        assert (comparison["state"], comparison["roots"]) == ("UPSTREAM_FAILED", ["fetch_price[0]"])

    def test_as_a_script(self, desk: Desk) -> None:
        assert desk.script("price_watch.py") == "Buy: coffee, cocoa\n"

    def test_its_tasks_are_functions(self, desk: Desk) -> None:
        readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
        (session,) = re.findall(r"```python\n(>>> .+?)```", readme, re.DOTALL)
        (desk.folder / "session.txt").write_text(session, encoding="utf-8")
        desk.call(sys.executable, "-m", "doctest", "session.txt", PYTHONPATH=str(EXAMPLES))


class TestSweep:
    def test_a_bad_configuration_is_reported(self, desk: Desk) -> None:
        small = '{"data": "breast_cancer", "models": ["svm", "neighbours"], "folds": 2}'
        run = desk.run("ml_sweep/flow.py", "--params-json", small)
        assert (run["state"], run["message"]) == ("COMPLETED", "1 failure handled")
        assert states(run, "cross_validate") == {"COMPLETED": 9, "FAILED": 1}
        (failed,) = (one for one in run["task_runs"] if one["state"] == "FAILED")
        assert failed["task_run_name"] == "svm C=-1"
        report = desk.folder / "ml-sweep"
        text = (report / "report.md").read_text(encoding="utf-8")
        assert "of 143 held-out samples" in text
        assert "svm C=-1 failed: " in text
        assert (report / "sweep.png").read_bytes().startswith(PNG)
