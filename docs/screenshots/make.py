"""Makes the screenshots of the page on observability: traces of the examples in a real Jaeger.

    python docs/screenshots/make.py [NAME …]

Needs the examples' libraries, a `jaeger` (on PATH, or in RAYSCHED_JAEGER) and Chromium. Jaeger and
the database are in a temporary directory and end with this; the pictures stand beside this file.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"

FLOWS = {
    "flights": ["flights/flow.py", "--param", "months=[1,2,3]", "--param", "destinations=8"],
    "billing": ["billing/flow.py", "--param", "broken=true"],
    "price_watch": ["price_watch.py"],
    "ml_sweep": ["ml_sweep/flow.py"],
}
"""What is run for each picture."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

SIZE = "1280,860"
"""Of a picture (pixels)."""

PATIENCE = 30.0
"""Seconds that a trace may take until Jaeger finds it."""

DRAWING_MS = 15_000
"""The page's own time that it gets to draw (ms)."""


def main() -> int:
    """Make the pictures that are named, or all; return the exit code."""
    names = sys.argv[1:] or list(FLOWS)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"none of {', '.join(BROWSERS)} is on PATH", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        environment = {**os.environ, "RAYSCHED_HOME": str(home)}
        started = raysched("jaeger", "--json", cwd=directory, env=environment)
        try:
            for name in names:
                run = raysched(
                    *("run", str(EXAMPLES / FLOWS[name][0]), "--json", *FLOWS[name][1:]),
                    cwd=directory,
                    env=environment,
                )
                wait_for(f"{started['ui']}/api/traces/{run['trace_id']}")
                page = f"{started['ui']}/trace/{run['trace_id']}"
                shoot(browser, page, HERE / f"{name}.png", directory)
                print(f"{name}.png: {run['flow']}, {run['state']}")
        finally:
            raysched("jaeger", "--stop", "--json", cwd=directory, env=environment)
    return 0


def raysched(*arguments: str, cwd: str, env: dict[str, str]) -> Any:
    """Run a command; return the JSON that it prints, whatever its exit code is."""
    done = subprocess.run(  # noqa: S603 - this project's own command
        [sys.executable, "-m", "raysched", *arguments],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        check=False,
    )
    return json.loads(done.stdout)


def wait_for(url: str) -> None:
    """Wait until Jaeger has a trace."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url) as answer:  # noqa: S310 - of our own Jaeger
                if json.load(answer)["data"]:
                    return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


def shoot(browser: str, page: str, picture: Path, directory: str) -> None:
    """Let a browser draw a page into a file."""
    subprocess.run(  # noqa: S603 - the browser, with a page of our own
        [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--user-data-dir={directory}/browser",
            f"--window-size={SIZE}",
            f"--virtual-time-budget={DRAWING_MS}",
            f"--screenshot={picture}",
            page,
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    sys.exit(main())
