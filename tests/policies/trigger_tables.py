"""The tables of docs/triggers.md: what each rule decides. Run as a script, it writes them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement as combinations
from pathlib import Path

from policies import airflow_rules
from policies.airflow_rules import FAILED, OPEN, SKIPPED, STATES, SUCCESS, UPSTREAM_FAILED
from raysched.model.triggers import MinSuccess, Trigger, TriggerRule
from raysched.policies.trigger import Decision, Parents, decide

PAGE = Path(__file__).parents[2] / "docs" / "triggers.md"
BEGIN, END = "<!-- begin: tests/policies/trigger_tables.py -->\n", "<!-- end -->\n"

RULES: tuple[Trigger, ...] = (*TriggerRule, MinSuccess(2), MinSuccess(0.5))

MOST = 3
"""Parents: with more of them a rule sees nothing that it does not see with three."""

WORDS = {
    Decision.RUN: "runs",
    Decision.WAIT: "waits",
    Decision.SKIP: "skipped",
    Decision.UPSTREAM_FAILED: "failed",
}

AIRFLOWS = {
    airflow_rules.RUN: Decision.RUN,
    airflow_rules.WAIT: Decision.WAIT,
    SKIPPED: Decision.SKIP,
    UPSTREAM_FAILED: Decision.UPSTREAM_FAILED,
}

States = tuple[str, ...]


def parents(states: Sequence[str], setups: Sequence[str] = ()) -> Parents:
    """Return what our rules see of parents in these states, of which some are setups."""
    count = Counter([*states, *setups])
    return Parents(
        succeeded=count[SUCCESS],
        failed=count[FAILED],
        upstream_failed=count[UPSTREAM_FAILED],
        skipped=count[SKIPPED],
        open=count[OPEN],
        setups=len(setups),
        setups_succeeded=sum(state == SUCCESS for state in setups),
    )


def ours(rule: Trigger, states: Sequence[str], setups: Sequence[str] = ()) -> Decision:
    """Return what our rule decides."""
    return decide(rule, parents(states, setups))


def airflows(rule: TriggerRule, states: Sequence[str], setups: Sequence[str] = ()) -> Decision:
    """Return what Airflow's rule decides."""
    return AIRFLOWS[airflow_rules.decide(rule.value, airflow_rules.counted(states, setups))]


def all_states(most: int = MOST) -> Iterator[States]:
    """Yield all combinations of states of up to so many parents."""
    for number in range(1, most + 1):
        yield from combinations(STATES, number)


def differs(rule: Trigger, states: Sequence[str], setups: Sequence[str] = ()) -> bool:
    """Whether Airflow's rule ends in something else, all parents having ended."""
    return (
        isinstance(rule, TriggerRule)
        and OPEN not in (*states, *setups)
        and airflows(rule, states, setups) is not ours(rule, states, setups)
    )


def tables() -> str:
    """Return the tables as Markdown."""
    parts = []
    for number in range(1, MOST + 1):
        title = f"### {number} parent{'s' if number > 1 else ''}"
        parts += [title, "", *_table([(states, ()) for states in combinations(STATES, number)]), ""]
    setups = [
        (others, setups)
        for setups in (*combinations(STATES, 1), *combinations(STATES, 2))
        for others in combinations((SUCCESS, FAILED), 1)
    ]
    rules = (TriggerRule.ALL_DONE_SETUP_SUCCESS,)
    parts += ["### Setups", "", *_table(setups, rules), ""]
    return "\n".join(parts)


def _table(
    rows: Sequence[tuple[States, States]], rules: Sequence[Trigger] = RULES
) -> Iterator[str]:
    yield "| parents | " + " | ".join(f"`{rule}`" for rule in rules) + " |"
    yield "| --- |" + " --- |" * len(rules)
    for states, setups in rows:
        cells = [_cell(rule, states, setups) for rule in rules]
        names = [*(f"setup {state}" for state in setups), *states]
        yield f"| {', '.join(names)} | " + " | ".join(cells) + " |"


def _cell(rule: Trigger, states: States, setups: States) -> str:
    word = WORDS[ours(rule, states, setups)]
    return f"**{word}**" if differs(rule, states, setups) else word


def written() -> str:
    """Return the page with the tables as they are now."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + tables() + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(written(), "utf-8")
