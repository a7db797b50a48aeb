"""What has to be true of a flow that was broken while it ran, from its graph alone.

It is judged from the start to the end, each task run by those that it needs: what became of those
was judged before. Chance decides only what infrastructure may: who ran out of `crash_retries`, and
where `max_failures` stopped a map.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from chaos.graphs import FALLBACK, Graph, Need, Node, name_of, value_of
from chaos.log import Log
from raysched.model.states import FAILURES, ROOT_FAILURES, SUCCESSES, StateType
from raysched.model.triggers import MinSuccess, Trigger, TriggerRule
from raysched.policies.trigger import EAGER, Decision, Parents, decide

S = StateType

Key = tuple[int, int]
"""Node and position."""

DEADLY = {"die", "die once"}


@dataclass(frozen=True)
class Found:
    """What is kept of a task run.

    Attributes:
        state: Its state as it is shown.
        ended: Whether that is recorded, not derived from the death of its driver.
        attempts: Number of attempts.
        roots: Keys of the failures that it followed.
        handled: Whether its failure is handled.
        history: Number and state of the attempts that failed or followed a failure.
        lost: Numbers of those that were lost with their driver.
        value: Its value; None if it has none.
    """

    state: StateType
    ended: bool
    attempts: int
    roots: frozenset[str]
    handled: bool
    history: Sequence[tuple[int, StateType]]
    lost: frozenset[int]
    value: Any


@dataclass
class Judge:
    """Compares what is kept of a flow run with its graph.

    Args:
        graph: The graph.
        found: What is kept, by key (`n3[2]`).
        log: What task runs have written down.
        kills: How many processes were killed at most.
        executions: How often the flow function was begun: each time with fresh budgets.

    Attributes:
        wrong: What is not as it has to be.
    """

    graph: Graph
    found: Mapping[str, Found]
    log: Log
    kills: int
    executions: int = 1
    wrong: list[str] = field(default_factory=list)

    def judge(self, *, lost: bool = False, stopped: bool = False) -> list[str]:
        """Return what is wrong.

        Args:
            lost: Whether the driver was killed: then task runs may be open.
            stopped: Whether the run was cancelled.
        """
        expected = {key_of(key) for key in self._keys()}
        if not lost and not stopped and self.found.keys() != expected:
            self._say(False, "", f"has {len(self.found)} task runs, not {len(expected)}")  # noqa: FBT003 - what it says
            return self.wrong
        self._say(self.found.keys() <= expected, "", "has more task runs than were called")
        unkept = {
            key for key in expected - self.found.keys() if key.partition("[")[0] in self.log.seen
        }
        self._say(not unkept, "", f"{sorted(unkept)} were seen ended, and are not kept")
        for key in self._keys():
            if key_of(key) in self.found:
                self._judge_one(key, lost=lost, stopped=stopped)
        if not lost and not stopped:
            self._judge_handling()
        return self.wrong

    def outcome(self) -> StateType:
        """Return how the flow run has to end."""
        return S.FAILED if self._unhandled() else S.COMPLETED

    def _say(self, right: object, key: str, message: str) -> None:
        if not right:
            self.wrong.append(f"{key}: {message}" if key else message)

    def _keys(self) -> Iterator[Key]:
        for number, node in enumerate(self.graph.nodes):
            for index in range(node.size):
                yield number, index

    @cached_property
    def deaths(self) -> int:
        """How many processes died at most, by us or by themselves."""
        suicides = sum(
            self.log.begun[key_of(key)]
            for key in self._keys()
            if self.graph.nodes[key[0]].deed(key[1]) in DEADLY
        )
        return self.kills + suicides

    def _judge_one(self, key: Key, *, lost: bool, stopped: bool) -> None:
        node, name, found = self.graph.nodes[key[0]], key_of(key), self.found[key_of(key)]
        self._judge_attempts(node, name, found, lost=lost)
        if not found.ended:
            self._say(name_of(key[0]) not in self.log.seen, name, "was seen ended, and is not kept")
            self._say(lost, name, f"was left {found.state.name}")
            return
        if stopped and found.state is S.CANCELLED:
            return
        parents = [(need, self.found.get(key_of(parent))) for need, parent in self._parents(key)]
        if rule_of(node) not in EAGER:
            missing = [need for need, parent in parents if parent is None or not parent.ended]
            self._say(not missing, name, "has ended before what it needs")
            if missing:
                return
        decision = decide(rule_of(node), tally(node, parents))
        if self._was_stopped(key):
            return
        if decision is Decision.WAIT:
            # Lost with its driver: what an eager one needs is still open.
            self._say(lost, name, "has ended, but its rule is not decided")
        elif decision is Decision.RUN:
            self._judge_own(key, found)
        else:
            self._judge_unbegun(key, found, decision)

    def _judge_unbegun(self, key: Key, found: Found, decision: Decision) -> None:
        name = key_of(key)
        ends = {Decision.SKIP: S.SKIPPED, Decision.UPSTREAM_FAILED: S.UPSTREAM_FAILED}
        self._say(found.state is ends[decision], name, f"is {found.state.name}, {decision}")
        self._say(not self.log.begun[name], name, "ran although its rule does not let it")
        self._say(not found.attempts, name, f"has {found.attempts} attempts, and never ran")
        if found.state is S.UPSTREAM_FAILED:
            roots = self._roots(key)
            self._say(
                found.roots == roots, name, f"has roots {sorted(found.roots)}, not {sorted(roots)}"
            )

    def _judge_own(self, key: Key, found: Found) -> None:
        node, name = self.graph.nodes[key[0]], key_of(key)
        crashed = sum(state is S.CRASHED for _, state in found.history)
        ends = own_ends(node, key[1])
        if self.deaths and crashed > node.crash_retries:
            ends = {S.CRASHED} if self.executions == 1 else ends | {S.CRASHED}
        again = self.executions > 1 and node.deed(key[1]) in {"fail once", "die once"}
        if again or (crashed and node.deed(key[1]) == "fail once"):
            # The attempt that would have failed crashed instead, or was of an earlier execution.
            ends = ends | {S.COMPLETED}
        if node.deed(key[1]) in DEADLY and node.crash_retries == 0:
            # Whoever shares a unit with the guilty one is a suspect first.
            ends = ends | ({S.COMPLETED} if node.deed(key[1]) == "die once" else set())
        values = {self._values.get(key)} if S.COMPLETED in ends else set()
        if node.fallback and ends & ROOT_FAILURES:
            ends = ends - ROOT_FAILURES | {S.COMPLETED}
            values.add(FALLBACK)
        self._say(found.state in ends, name, f"is {found.state.name}, not {_names(ends)}")
        if found.state is S.CRASHED:
            self._say(self.deaths, name, "crashed, and nobody broke anything")
        if found.state in SUCCESSES:
            known = None not in values
            self._say(not known or found.value in values, name, f"has {found.value}, not {values}")

    def _judge_attempts(self, node: Node, name: str, found: Found, *, lost: bool) -> None:
        numbers = [number for number, _ in found.history]
        self._say(len(set(numbers)) == len(numbers), name, f"has two rows of an attempt: {numbers}")
        own = [state for number, state in found.history if number not in found.lost]
        states, times = Counter(own), self.executions
        users = states[S.FAILED] + states[S.TIMED_OUT]
        most = times * (node.retries + 1)
        self._say(users <= most, name, f"failed {users} times: {node.retries} retries")
        crashes = states[S.CRASHED]
        most = times * (node.crash_retries + 1)
        self._say(crashes <= most, name, f"{crashes} crashes: {node.crash_retries}")
        budget = times * (1 + node.retries + node.crash_retries) + len(found.lost)
        self._say(found.attempts <= budget, name, f"{found.attempts} attempts of {budget}")
        begun = self.log.begun[name]
        # Whoever was under a process that died under several is run again without being charged.
        most = found.attempts + self.deaths + lost
        self._say(begun <= most, name, f"began {begun} times: {found.attempts} attempts")
        if found.ended and found.state in {S.FAILED, S.TIMED_OUT, S.CRASHED}:
            rows = set(range(1, found.attempts + 1)) - set(numbers)
            self._say(not rows, name, f"nothing is kept of its attempts {sorted(rows)}")
        if found.ended and found.state is S.FAILED and not node.max_failures:
            self._say(users > node.retries, name, f"failed for good after {users} times")
        if found.ended and found.state is S.CRASHED:
            self._say(crashes > node.crash_retries, name, f"crashed for good after {crashes}")
        if found.state in SUCCESSES and found.ended and begun == 0:
            self._say(False, name, "completed without having run")  # noqa: FBT003 - what it says

    def _was_stopped(self, key: Key) -> bool:
        """Whether `max_failures` of its group explains that it did not run."""
        node, found = self.graph.nodes[key[0]], self.found[key_of(key)]
        if not node.max_failures or found.state is not S.UPSTREAM_FAILED:
            return False
        failed = self._failed_in(key[0])
        enough = len(failed) >= node.max_failures
        if enough:
            # Some may have ended in the meantime that ran already.
            self._say(found.roots, key_of(key), "was stopped by nothing")
            beyond = found.roots - failed - self._roots(key)
            self._say(not beyond, key_of(key), f"was stopped by {sorted(beyond)}")
        return enough

    def _failed_in(self, number: int) -> set[str]:
        keys = [key_of((number, index)) for index in range(self.graph.nodes[number].size)]
        return {key for key in keys if self.found[key].state in ROOT_FAILURES}

    def _parents(self, key: Key) -> Iterator[tuple[Need, Key]]:
        number, index = key
        for need in self.graph.nodes[number].needs:
            size = self.graph.nodes[need.node].size
            if need.how == "each" and self.graph.nodes[number].kind == "each":
                yield need, (need.node, index)
            elif need.how == "one":
                yield need, (need.node, 0)
            else:
                for member in range(size):
                    yield need, (need.node, member)

    def _roots(self, key: Key) -> frozenset[str]:
        """Return the roots of what failed before a task run and is not allowed to."""
        node = self.graph.nodes[key[0]]
        roots: set[str] = set()
        for need, parent in self._parents(key):
            found = self.found[key_of(parent)]
            if not tolerates(node, need):
                roots |= found.roots
                if found.state in ROOT_FAILURES:
                    roots.add(key_of(parent))
        return frozenset(roots)

    def _judge_handling(self) -> None:
        for key in self._keys():
            name, found = key_of(key), self.found[key_of(key)]
            if found.state in ROOT_FAILURES and not self._is_disputed(key):
                right = self.graph.takes or name in self._consumed
                self._say(found.handled == right, name, f"handled is {found.handled}")

    def _is_disputed(self, key: Key) -> bool:
        """Whether a map that was stopped needs it: it may have been stopped before or after."""
        return any(
            node.max_failures and any(need.node == key[0] for need in node.needs)
            for node in self.graph.nodes
        )

    def _unhandled(self) -> bool:
        return any(each.state in ROOT_FAILURES and not each.handled for each in self.found.values())

    @cached_property
    def _consumed(self) -> set[str]:
        """Failures that some task run was let run in spite of."""
        consumed: set[str] = set()
        for key in self._keys():
            node = self.graph.nodes[key[0]]
            parents = [(n, self.found[key_of(parent)]) for n, parent in self._parents(key)]
            if decide(rule_of(node), tally(node, parents)) is Decision.RUN:
                for _, parent in self._parents(key):
                    found = self.found[key_of(parent)]
                    consumed |= found.roots
                    if found.state in ROOT_FAILURES:
                        consumed.add(key_of(parent))
        return consumed

    @cached_property
    def _values(self) -> dict[Key, int | None]:
        """The values of all that completes; None where chance decides about arguments."""
        values: dict[Key, int | None] = {}
        for key in self._keys():
            number, index = key
            node = self.graph.nodes[number]
            given = [self._given(key, need, values) for need in node.needs if need.how != "wait"]
            unsure = rule_of(node) in EAGER or any(_has_none(one) for one in given)
            values[key] = (
                None if unsure else value_of(name_of(number), index, node.deed(index), given)
            )
        return values

    def _given(self, key: Key, need: Need, values: Mapping[Key, int | None]) -> object:
        parents = [parent for other, parent in self._parents(key) if other is need]
        found = [self._handed(parent, values) for parent in parents]
        single = need.how == "one" or (
            need.how == "each" and self.graph.nodes[key[0]].kind == "each"
        )
        return found[0] if single else found

    def _handed(self, parent: Key, values: Mapping[Key, int | None]) -> object:
        found = self.found.get(key_of(parent))
        if found is None or not found.ended:
            return None
        if found.state not in SUCCESSES:
            return "failure"
        return FALLBACK if found.value == FALLBACK else values[parent]


def key_of(key: Key) -> str:
    """Return a task run's key: `n3[2]`."""
    return f"{name_of(key[0])}[{key[1]}]"


def rule_of(node: Node) -> Trigger:
    """Return the trigger rule of a node."""
    return MinSuccess(0.5) if node.rule == "min_success" else TriggerRule(node.rule)


def tolerates(node: Node, need: Need) -> bool:
    """Whether `all_success` takes failures across a need for successes."""
    return need.allow and node.rule == "all_success"


def tally(node: Node, parents: Sequence[tuple[Need, Found | None]]) -> Parents:
    """Return what the rule of a node sees of what it needs."""
    count: Counter[str] = Counter()
    for need, found in parents:
        if found is None or not found.ended:
            count["open"] += 1
        elif found.state in SUCCESSES or tolerates(node, need):
            count["succeeded"] += 1
        elif found.state is S.UPSTREAM_FAILED:
            count["upstream_failed"] += 1
        elif found.state in FAILURES:
            count["failed"] += 1
        else:
            count["skipped"] += 1
    return Parents(**count)


def own_ends(node: Node, index: int) -> set[StateType]:
    """Return how a task run may end that is let run, if nobody breaks anything."""
    ends = {
        "fail": S.FAILED,
        "exit": S.FAILED,
        "fail once": S.COMPLETED if node.retries else S.FAILED,
        "skip": S.SKIPPED,
        "late": S.TIMED_OUT,
        "die": S.CRASHED,
        "die once": S.COMPLETED if node.crash_retries else S.CRASHED,
    }
    return {ends.get(node.deed(index), S.COMPLETED)}


def _names(states: set[StateType]) -> str:
    return " or ".join(sorted(state.name for state in states))


def _has_none(value: object) -> bool:
    return value is None or (isinstance(value, list) and any(_has_none(one) for one in value))
