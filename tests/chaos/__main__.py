"""`python -m tests.chaos`: plays many stories, and writes what came of them into the documentation.

`--stories 200 --seed 1` plays 200 of them, each with the next seed, the faults in turn. With
`--database both` each second round of faults is played on PostgreSQL. With `--write` the table in
docs/reliability.md becomes the one of this run.
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

from chaos.breaking import Fault, faults_of
from chaos.cluster import cluster
from chaos.stories import play
from chaos.story import Story
from servers import Server, server

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: python -m tests.chaos -->\n", "<!-- end -->\n"

ALL = {
    **faults_of(inline=False, postgresql=True),
    **faults_of(inline=True, postgresql=True),
}

LABELS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

DATABASES = (*LABELS, "both")

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Play the stories that were asked for; return 1 if one of them went wrong, else 0."""
    options = _options()
    began = time.monotonic()
    stories = list(_play(options, _turns(options)))
    wrong = [story for story in stories if story.wrong]
    for story in wrong:
        console.print(f"[red]{_command(story)}[/red]", markup=True)
        for line in story.wrong:
            console.print(f"    {line}", markup=False)
    table = _table(stories, time.monotonic() - began, options)
    console.print(table, markup=False)
    if options.write:
        _write(table)
    return int(bool(wrong))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--stories", type=int, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="that of the first story")
    parser.add_argument("--fault", nargs="+", choices=[*ALL])
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="keep what stories leave")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md")
    return parser.parse_args()


def _turns(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the faults and the databases that they are for, in the order in which they come."""
    databases = ("sqlite", "postgresql") if options.database == "both" else (options.database,)
    return [
        (fault, name)
        for name in databases
        for fault in options.fault or ALL
        if fault in _possible(name)
    ]


def _possible(name: str) -> dict[str, Fault]:
    postgresql = name == "postgresql"
    return {
        **faults_of(inline=True, postgresql=postgresql),
        **faults_of(inline=False, postgresql=postgresql),
    }


def _play(options: argparse.Namespace, turns: list[tuple[str, str]]) -> Iterator[Story]:
    with ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(TemporaryDirectory(prefix="chaos-")))
        # What no turn needs is not started.
        there = None
        if not all(fault.startswith("inline") for fault, _ in turns):
            there = stack.enter_context(cluster())
        running: Server | None = None
        if any(name == "postgresql" for _, name in turns):
            running = stack.enter_context(server())
        for number in range(options.stories):
            seed, (fault, name) = options.seed + number, turns[number % len(turns)]
            began = time.monotonic()
            directory = place.absolute() / str(seed)
            where = None if fault.startswith("inline") else there
            kept = running if name == "postgresql" else None
            try:
                story = play(seed, fault, directory, where, kept)
            except Exception as error:  # noqa: BLE001 - the others are played all the same
                story = Story(seed, fault, directory, where, kept, wrong=[repr(error)])
            seconds = time.monotonic() - began
            verdict = "[red]wrong[/red]" if story.wrong else "ok"
            console.print(f"{seed:6} {seconds:5.1f} s  {verdict}  {fault} ({name})", markup=True)
            yield story


def _command(story: Story) -> str:
    fault, name = shlex.quote(story.fault), _database(story)
    command = f"python -m tests.chaos --stories 1 --seed {story.seed} --fault {fault}"
    return command if name == "sqlite" else f"{command} --database {name}"


def _database(story: Story) -> str:
    return "sqlite" if story.server is None else "postgresql"


def _table(stories: list[Story], seconds: float, options: argparse.Namespace) -> str:
    played, broken, lost = (
        Counter[tuple[str, str]](),
        Counter[tuple[str, str]](),
        Counter[tuple[str, str]](),
    )
    for story in stories:
        kind = story.fault, _database(story)
        played[kind] += 1
        broken[kind] += story.broken
        lost[kind] += bool(story.wrong)
    rows = [
        f"| {fault} | {LABELS[name]} | {played[fault, name]} | {broken[fault, name]} | "
        f"{played[fault, name] - lost[fault, name]} | {lost[fault, name]} |"
        for fault in ALL
        for name in LABELS
        if played[fault, name]
    ]
    total = f"| all | | {played.total()} | {broken.total()} | "
    total += f"{played.total() - lost.total()} | {lost.total()} |"
    told = ["--database", options.database, "--stories", str(len(stories))]
    told += ["--seed", str(options.seed), *(["--fault", *options.fault] if options.fault else [])]
    command = shlex.join(["python", "-m", "tests.chaos", *told])
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
            "| what was broken | database | stories | faults | survived | lost |",
            "| --- | --- | --- | --- | --- | --- |",
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
