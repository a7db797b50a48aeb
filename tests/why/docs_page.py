"""The generated parts of docs/why.md: what is said of a run of an example, and the advice.

`PYTHONPATH=tests python tests/why/docs_page.py` writes them anew.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from raysched.client.advice import RULES
from why.around import steady

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "why.md"
EXAMPLE = ROOT / "examples" / "billing" / "flow.py"
END = "<!-- end -->"

STAND_INS = {
    "(run)": "3f9c0a12",
    "(time)": "2026-11-20 12:00:03",
    "(s)": "0.01 s",
    "(host), pid (pid)": "laptop, pid 4711",
}
"""What stands in the page for what differs from run to run."""


def billing() -> str:
    """Return what is said of the example's broken run, after one that went well."""
    with TemporaryDirectory() as folder:
        shutil.copy(EXAMPLE, folder)
        _call(folder, "run", "flow.py")
        _call(folder, "run", "flow.py", "--param", "broken=true")
        text = steady(_call(folder, "why", "last").replace(f"{Path(folder).resolve()}{os.sep}", ""))
    for volatile, stand_in in STAND_INS.items():
        text = text.replace(volatile, stand_in)
    lines = ["```text", "$ raysched why last", *_aligned(text.splitlines()), "```"]
    return "\n".join(lines) + "\n"


def advice() -> str:
    """Return the table of advice as Markdown."""
    lines = ["| When | What helps | |", "| --- | --- | --- |"]
    for rule in RULES:
        code = f"`{', '.join((*rule.code, *rule.change))}`" if rule.code or rule.change else ""
        lines.append(f"| {rule.when} | {rule.text} | {code} |")
    return "\n".join(lines) + "\n"


PARTS = {"billing": billing, "advice": advice}


def written(name: str) -> str:
    """Return the page with one of its parts as it is now."""
    begin = f"<!-- begin: {name}, by tests/why/docs_page.py -->"
    before, _, rest = PAGE.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(END)
    return f"{before}{begin}\n\n{PARTS[name]()}\n{END}{after}"


def _call(folder: str, *arguments: str) -> str:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RAYSCHED_")}
    done = subprocess.run(
        [sys.executable, "-m", "raysched", *arguments],
        cwd=folder,
        env=kept
        | {"RAYSCHED_HOME": f"{folder}/home", "RAYSCHED_BACKEND": "inline", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout


def _aligned(lines: Sequence[str]) -> Iterator[str]:
    """Yield lines, those of tables and names with their columns below each other again."""
    block: list[list[str]] = []
    for line in lines:
        cells = re.split(r"(?<=[^\s│]) {2,}", line)
        if len(cells) > 1 and line.startswith("   ") and (not block or _fits(cells, block)):
            block.append(cells)
            continue
        widths = [max(map(len, column)) for column in zip(*block, strict=True)]
        for row in block:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield "  ".join(padded).rstrip()
        block = [cells] if len(cells) > 1 and line.startswith("   ") else []
        if not block:
            yield line


def _fits(cells: Sequence[str], block: Sequence[Sequence[str]]) -> bool:
    return len(cells) == len(block[0])


if __name__ == "__main__":
    for name in PARTS:
        PAGE.write_text(written(name), "utf-8")
