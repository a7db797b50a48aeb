"""`python -m tests.chaos`: plays many stories, and writes what came of them into the documentation.

`--stories 200 --seed 1` plays 200 of them, each with the next seed, the faults in turn. With
`--write` the table in docs/reliability.md becomes the one of this run.
"""

import argparse
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.append(str(Path(__file__).parents[1]))

import psutil
import ray
from rich.console import Console

from chaos.breaking import FAULTS, INLINE
from chaos.cluster import cluster
from chaos.stories import play
from chaos.story import Story

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: python -m tests.chaos -->\n", "<!-- end -->\n"

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Play the stories that were asked for; return 1 if one of them went wrong, else 0."""
    options = _options()
    faults = [*INLINE, *FAULTS] if not options.fault else options.fault
    began = time.monotonic()
    stories = list(_play(options, faults))
    wrong = [story for story in stories if story.wrong]
    for story in wrong:
        console.print(f"[red]{_command(story)}[/red]", markup=True)
        for line in story.wrong:
            console.print(f"    {line}", markup=False)
    table = _table(stories, time.monotonic() - began)
    console.print(table, markup=False)
    if options.write:
        _write(table)
    return int(bool(wrong))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--stories", type=int, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="that of the first story")
    parser.add_argument("--fault", nargs="+", choices=[*FAULTS, *INLINE])
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="keep what stories leave")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md")
    return parser.parse_args()


def _play(options: argparse.Namespace, faults: list[str]) -> Iterator[Story]:
    with ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(TemporaryDirectory(prefix="chaos-")))
        there = stack.enter_context(cluster()) if {*faults} & {*FAULTS} else None
        for number in range(options.stories):
            seed, fault = options.seed + number, faults[number % len(faults)]
            began = time.monotonic()
            where = there if fault in FAULTS else None
            directory = place.absolute() / str(seed)
            try:
                story = play(seed, fault, directory, where)
            except Exception as error:  # noqa: BLE001 - the others are played all the same
                story = Story(seed, fault, directory, wrong=[repr(error)])
            seconds = time.monotonic() - began
            verdict = "[red]wrong[/red]" if story.wrong else "ok"
            console.print(f"{seed:6} {seconds:5.1f} s  {verdict}  {fault}", markup=True)
            yield story


def _command(story: Story) -> str:
    fault = shlex.quote(story.fault)
    return f"python -m tests.chaos --stories 1 --seed {story.seed} --fault {fault}"


def _table(stories: list[Story], seconds: float) -> str:
    played, broken, lost = Counter[str](), Counter[str](), Counter[str]()
    for story in stories:
        played[story.fault] += 1
        broken[story.fault] += story.broken
        lost[story.fault] += bool(story.wrong)
    rows = [
        f"| {fault} | {played[fault]} | {broken[fault]} | {played[fault] - lost[fault]} | "
        f"{lost[fault]} |"
        for fault in (*FAULTS, *INLINE)
        if played[fault]
    ]
    total = f"| all | {played.total()} | {broken.total()} | "
    total += f"{played.total() - lost.total()} | {lost.total()} |"
    command = f"python -m tests.chaos --stories {len(stories)} --seed {stories[0].seed}"
    seeds = f"{stories[0].seed} to {stories[-1].seed}"
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB; Python {platform.python_version()}, "
        f"Ray {ray.__version__}"
    )
    return "\n".join(
        [
            f"`{command}`: seeds {seeds}, {seconds / 60:.0f} minutes on {machine}.",
            "",
            "| what was broken | stories | faults | survived | lost |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            total,
        ]
    )


def _write(table: str) -> None:
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
