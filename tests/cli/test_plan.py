"""`raysched show --plan`: how a flow was compiled."""

from collections.abc import Iterator
from typing import Any

import pytest

from cli.commands import Command
from cli.kept_runs import close_run, open_run, store
from raysched.model.rows import Batch, GroupRow

SHARED = '{"unit_size": 1000, "notes": ["quick task runs share units"]}'
ALONE = '{"unit_size": 1, "fixed": true, "class": {"num_cpus": "2"}, "notes": ["batch=False"]}'
FIXED = '{"unit_size": 50, "fixed": true, "overlapping": true}'
BEHIND = '{"unit_size": 1000, "fused_behind": 3, "notes": ["it needs nothing else"]}'
CALLED = '{"unit_size": 1000}'

GROUPS = [
    *(GroupRow(number, "get", number, 1, plan=CALLED) for number in range(3)),
    GroupRow(3, "load", 0, 1000, mapped=True, plan=SHARED),
    GroupRow(4, "clean", 0, 1000, mapped=True, plan=BEHIND),
    GroupRow(5, "alone", 5, 3, plan=ALONE, options='{"max_parallel": 2}'),
    GroupRow(6, "ask", 0, 100, mapped=True, plan=FIXED),
    GroupRow(7, "old", 0, 3),
    GroupRow(8, "inner", 0, 1, plan=CALLED, parent_key="load[17]"),
]


@pytest.fixture
def planned() -> Iterator[str]:
    """A run with a group of each kind, some of whose units were counted."""
    kept = store()
    run_id, number = open_run(kept, "nightly")
    kept.commit(Batch(number, groups=GROUPS, units={3: 8, 4: 1, 5: 3}))
    close_run(kept, number)
    yield run_id
    kept.close()


def blocks(out: str) -> dict[str, list[str]]:
    """Return the lines of each group by its title, without the spaces that align them."""
    found: dict[str, list[str]] = {}
    for block in out.strip().split("\n\n")[1:]:
        title, *lines = block.splitlines()
        found[title] = [" ".join(line.split()) for line in lines]
    return found


class TestForPeople:
    def test_groups_that_are_alike_are_told_once(self, looking: Command, planned: str) -> None:
        usual = "needs num_cpus=1, as Ray's tasks by default"
        assert blocks(looking("show", planned, "--plan").out) == {
            "get  3 task runs in 3 groups": [usual, "units of one task run each"],
            "load[0…999]  1,000 task runs of a map": [
                usual,
                "units adaptive, up to 1,000 task runs each",
                "took 8 units, 125.0 task runs each on average",
                "because quick task runs share units",
            ],
            "clean[0…999]  1,000 task runs of a map": [
                usual,
                "units those of load: each runs right after the one that it needs",
                "took 1 unit for the others",
                "because it needs nothing else",
            ],
            "alone[5…7]  3 task runs": [
                "needs num_cpus=2",
                "units of one task run each",
                "took 3 units, 1.0 task runs each on average",
                "because batch=False",
            ],
            "ask[0…99]  100 task runs of a map": [
                usual,
                "units of 50 task runs each, which overlap",
            ],
            "old[0…2]  3 task runs": [usual, "units not kept"],
            "inner[0]  1 task run": [
                "inside load[17]",
                usual,
                "units of one task run each",
            ],
        }

    def test_fits_80_columns_and_says_what_it_leaves_out(
        self, looking: Command, planned: str
    ) -> None:
        lines = looking("show", planned, "--plan", "--limit", "2").out.splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[-1] == "… and 5 more (--limit 0 for all)"

    def test_of_one_task(self, looking: Command, planned: str) -> None:
        found = blocks(looking("show", planned, "--plan", "--task", "clean").out)
        assert [title.split("[")[0] for title in found] == ["clean"]
        # Its parent is named, though it is not shown.
        assert "those of load" in found.popitem()[1][1]


class TestAsJson:
    def test_has_every_group(self, looking: Command, planned: str) -> None:
        shown = looking("show", planned, "--plan", "--json").json()
        assert (shown["id"], "task_runs" in shown) == (planned, False)
        groups = shown["plan"]
        assert [group["group"] for group in groups] == list(range(len(GROUPS)))
        assert groups[5] == {
            "group": 5,
            "name": "alone",
            "first": 5,
            "size": 3,
            "mapped": False,
            "parent_key": None,
            "scheduling_class": {"num_cpus": "2"},
            "cut": "single",
            "unit_size": 1,
            "overlapping": False,
            "max_parallel": 2,
            "fused_behind": None,
            "units": 3,
            "notes": ["batch=False"],
        }
        cuts = [group["cut"] for group in groups]
        assert cuts[2:] == [
            "single",
            "adaptive",
            "fused",
            "single",
            "overlapping",
            "unknown",
            "single",
        ]
        assert groups[4]["fused_behind"] == 3

    @pytest.mark.parametrize(
        ("options", "number"), [(("--task", "get"), 3), (("--limit", "4"), 4), ((), len(GROUPS))]
    )
    def test_filters(
        self, looking: Command, planned: str, options: tuple[str, ...], number: int
    ) -> None:
        shown: Any = looking("show", planned, "--plan", "--json", *options).json()
        assert len(shown["plan"]) == number


def test_states_choose_task_runs(looking: Command, planned: str) -> None:
    done = looking("show", planned, "--plan", "--state", "FAILED")
    assert (done.code, "leave one out" in done.err) == (2, True)
    assert looking("show", planned, "--plan", "--task", "nothing").code == 2


@pytest.mark.usefixtures("here")
def test_tells_of_flows_that_ran(raysched: Command) -> None:
    assert raysched("run", "sums.py", "--backend", "inline").code == 0
    parse, total = raysched("show", "last", "--plan", "--json").json()["plan"]
    assert [(group["name"], group["size"]) for group in (parse, total)] == [
        ("parse", 3),
        ("total", 1),
    ]
    assert parse["cut"] == "adaptive"
    assert any("share units" in note for note in parse["notes"])
