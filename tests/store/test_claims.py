"""Who makes the result of a cache key, and who gets it."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from raysched.model.records import CacheAnswer, CacheClaim, CacheVerdict
from raysched.model.rows import Batch, TaskRunColumns
from raysched.model.states import FAILURES, StateType
from raysched.store import open_store
from raysched.store.sql import SqlStore
from store.samples import NOON, closing, execute, flow_run, group, task_runs

HIT, MINE, BUSY = CacheVerdict.HIT, CacheVerdict.MINE, CacheVerdict.BUSY

KEY = b"k" * 16

HOUR = 3600 * 10**9

SIZE = 20


@pytest.fixture
def other(url: str) -> Iterator[SqlStore]:
    """A store of another driver, if of this process."""
    store = open_store(url)
    yield store
    store.close()


def open_run(store: SqlStore, run_id: str) -> int:
    number = store.open_run(flow_run(id=run_id))
    store.commit(Batch(number, groups=[group(0, SIZE, first=100)]))
    return number


def claim(
    index: int = 0, key: bytes = KEY, *, lifetime: int = 0, refresh: bool = False
) -> CacheClaim:
    return CacheClaim(key, 0, index, "parse", lifetime, refresh, '{"x": "00"}')


def ask(store: SqlStore, run: int, *claims: CacheClaim) -> list[CacheVerdict]:
    return [answer.verdict for answer in store.claim(run, claims)]


def kept(indices: range, value: bytes | None = b"value", ended: int = NOON) -> TaskRunColumns:
    length = len(indices)
    columns = task_runs(0, indices)
    columns.started = [ended - 1] * length
    columns.ended = [ended] * length
    columns.values = [value] * length
    columns.sizes = [5] * length
    return columns


class TestAsking:
    def test_the_first_makes_it_and_others_wait(self, store: SqlStore, other: SqlStore) -> None:
        first, second = open_run(store, "aa"), open_run(other, "bb")
        assert store.claim(first, [claim(3)]) == [CacheAnswer(MINE)]
        assert other.claim(second, [claim(7)]) == [CacheAnswer(BUSY, "aa", "parse[103]")]
        store.commit(Batch(first, task_runs=[task_runs(0, [3], StateType.RUNNING)]))
        assert ask(other, second, claim(7)) == [BUSY]
        # Who makes it may ask again: for another attempt, or where the answer got lost.
        assert ask(store, first, claim(3)) == [MINE]

    def test_a_small_result_is_handed_over(self, store: SqlStore, other: SqlStore) -> None:
        first, second = open_run(store, "aa"), open_run(other, "bb")
        store.claim(first, [claim(3)])
        store.commit(Batch(first, task_runs=[kept(range(3, 4))]))
        store.commit(closing(first))
        (answer,) = other.claim(second, [claim(7)])
        assert answer == CacheAnswer(HIT, "aa", "parse[103]", b"value", "", 5, NOON)

    def test_a_large_result_is_pointed_to(self, store: SqlStore) -> None:
        number = open_run(store, "aa")
        store.claim(number, [claim(3)])
        large = replace(kept(range(3, 4), None), locations={0: "s3://b/o#0+9:ab"}, sizes=[10**12])
        store.commit(Batch(number, task_runs=[large]))
        (answer,) = store.claim(number, [claim(7)])
        assert answer == CacheAnswer(HIT, "aa", "parse[103]", None, "s3://b/o#0+9:ab", 10**12, NOON)

    def test_of_equal_keys_the_first_makes_it(self, store: SqlStore) -> None:
        number = open_run(store, "aa")
        same, else_ = claim(0), claim(9, b"e" * 16)
        assert ask(store, number, same, claim(1), else_, claim(2)) == [MINE, BUSY, MINE, BUSY]
        assert ask(store, number, claim(1), claim(2)) == [BUSY, BUSY]
        store.commit(Batch(number, task_runs=[kept(range(1))]))
        assert ask(store, number, claim(1), claim(2)) == [HIT, HIT]

    def test_nothing_is_asked(self, store: SqlStore) -> None:
        assert store.claim(open_run(store, "aa"), []) == []

    def test_ten_thousand_at_once(self, store: SqlStore, other: SqlStore) -> None:
        first, second = open_run(store, "aa"), open_run(other, "bb")
        size = 12_000
        keys = [index.to_bytes(16) for index in range(size)]
        claims = [claim(index, key) for index, key in enumerate(keys)]
        store.commit(Batch(first, groups=[group(0, size, first=100)]))
        assert ask(store, first, *claims[:11_000]) == [MINE] * 11_000
        assert ask(other, second, *claims) == [BUSY] * 11_000 + [MINE] * 1000
        store.commit(Batch(first, task_runs=[kept(range(10_500))]))
        answers = store.claim(first, list(reversed(claims)))
        assert [answer.verdict for answer in answers[-10_500:]] == [MINE] * 10_500
        answers = other.claim(second, claims)
        assert [answer.task_run for answer in answers[:10_500]] == [
            f"parse[{100 + index}]" for index in range(10_500)
        ]
        assert {answer.verdict for answer in answers[:10_500]} == {HIT}


class TestManyAtOnce:
    """Many new keys are taken without a look at each; some among them are not new."""

    KEYS = tuple(index.to_bytes(16) for index in range(1000))

    @pytest.mark.parametrize(
        "places", [{0}, {500}, {999}, {1, 17, 400, 777}, set(range(0, 1000, 7))]
    )
    def test_those_of_others_are_left_to_them(
        self, store: SqlStore, other: SqlStore, places: set[int]
    ) -> None:
        first, second = open_run(store, "aa"), open_run(other, "bb")
        store.claim(first, [claim(0, self.KEYS[place]) for place in sorted(places)])
        expected = [BUSY if place in places else MINE for place in range(len(self.KEYS))]
        claims = [claim(5, key) for key in self.KEYS]
        assert ask(other, second, *claims) == expected
        # Who makes them may ask again.
        assert ask(other, second, *claims) == expected
        assert ask(store, first, *(claim(1, key) for key in self.KEYS)) == [BUSY] * len(self.KEYS)

    def test_results_are_found_among_them(self, store: SqlStore) -> None:
        number = open_run(store, "aa")
        store.claim(number, [claim(3, self.KEYS[555])])
        store.commit(Batch(number, task_runs=[kept(range(3, 4))]))
        verdicts = ask(store, number, *(claim(5, key) for key in self.KEYS))
        assert verdicts == [MINE] * 555 + [HIT] + [MINE] * 444

    def test_results_are_made_anew_if_wanted(self, store: SqlStore, other: SqlStore) -> None:
        first, second = open_run(store, "aa"), open_run(other, "bb")
        store.claim(first, [claim(3, self.KEYS[555])])
        store.commit(Batch(first, task_runs=[kept(range(3, 4))]))
        claims = [claim(5, key, refresh=True) for key in self.KEYS]
        answers = other.claim(second, claims)
        assert answers[555] == CacheAnswer(MINE, "aa", "parse[103]", ended=NOON)
        assert answers[:555] + answers[556:] == [CacheAnswer(MINE)] * 999
        assert ask(store, first, claim(3, self.KEYS[555])) == [BUSY]

    def test_of_equal_keys_the_first_makes_it(self, store: SqlStore) -> None:
        number = open_run(store, "aa")
        claims = [claim(place // 2, key) for place, key in enumerate(self.KEYS * 2)]
        assert ask(store, number, *claims) == [MINE] * 1000 + [BUSY] * 1000


def use_nothing(store: SqlStore, number: int) -> None:
    store.commit(Batch(number, task_runs=[kept(range(1), None)]))


def roll_back(store: SqlStore, number: int) -> None:
    undone = replace(kept(range(1)), rolled_back=frozenset({0}))
    store.commit(Batch(number, task_runs=[undone]))


def fall_back(store: SqlStore, number: int) -> None:
    store.commit(Batch(number, task_runs=[replace(kept(range(1)), handled=frozenset({0}))]))


def end_without(store: SqlStore, number: int) -> None:
    store.commit(closing(number, StateType.FAILED))


def die(store: SqlStore, number: int) -> None:
    store.commit(Batch(number, task_runs=[task_runs(0, [0], StateType.RUNNING)]))
    store.close()


@pytest.mark.parametrize("lose", [use_nothing, roll_back, fall_back, end_without, die])
def test_who_has_no_result_to_share_has_lost_the_claim(
    store: SqlStore, other: SqlStore, lose: Callable[[SqlStore, int], None]
) -> None:
    first, second = open_run(store, "aa"), open_run(other, "bb")
    store.claim(first, [claim()])
    assert ask(other, second, claim(7)) == [BUSY]
    lose(store, first)
    answers = other.claim(second, [claim(7), claim(8)])
    assert answers == [CacheAnswer(MINE, "aa", "parse[100]"), CacheAnswer(BUSY)]
    assert ask(other, second, claim(9)) == [BUSY]


@pytest.mark.parametrize("state", sorted(FAILURES | {StateType.SKIPPED}))
def test_who_has_failed_has_lost_the_claim(store: SqlStore, state: StateType) -> None:
    number = open_run(store, "aa")
    store.claim(number, [claim(0)])
    store.commit(Batch(number, task_runs=[task_runs(0, [0], state)]))
    assert ask(store, number, claim(1)) == [MINE]
    assert ask(store, number, claim(2)) == [BUSY]


def test_a_run_that_is_gone_has_lost_the_claim(store: SqlStore, url: str) -> None:
    number = open_run(store, "aa")
    execute(
        url,
        "INSERT INTO cache_entry (key, run, grp, idx, task, created, lifetime, parts) "
        f"SELECT {_literal(url)}, 4711, 0, 0, 'parse', 1, 0, '{{}}'",
    )
    assert ask(store, number, claim(1)) == [MINE]


def _literal(url: str) -> str:
    return f"x'{KEY.hex()}'" if url.startswith("sqlite") else rf"'\x{KEY.hex()}'::bytea"


class TestExpiring:
    @pytest.mark.parametrize(
        ("makers", "askers", "verdict"),
        [
            (0, 0, HIT),
            (2 * HOUR, 0, HIT),
            (HOUR // 2, 0, MINE),
            (0, HOUR // 2, MINE),
            (2 * HOUR, HOUR // 2, MINE),
            (HOUR // 2, 2 * HOUR, MINE),
            (2 * HOUR, 2 * HOUR, HIT),
        ],
    )
    def test_a_result_of_an_hour_ago(
        self, store: SqlStore, makers: int, askers: int, verdict: CacheVerdict
    ) -> None:
        number = open_run(store, "aa")
        store.claim(number, [claim(0, lifetime=makers)])
        store.commit(Batch(number, task_runs=[kept(range(1), ended=time.time_ns() - HOUR)]))
        assert ask(store, number, claim(1, lifetime=askers)) == [verdict]


class TestRefreshing:
    def test_replaces_a_result(self, store: SqlStore, other: SqlStore) -> None:
        first, second = open_run(store, "aa"), open_run(other, "bb")
        store.claim(first, [claim(0)])
        store.commit(Batch(first, task_runs=[kept(range(1), b"old")]))
        assert ask(other, second, claim(5, refresh=True)) == [MINE]
        assert ask(store, first, claim(1)) == [BUSY]
        other.commit(Batch(second, task_runs=[kept(range(5, 6), b"new")]))
        (answer,) = store.claim(first, [claim(1)])
        assert (answer.run_id, answer.task_run, answer.value) == ("bb", "parse[105]", b"new")

    def test_waits_for_nobody_but_who_asks_with_it(self, store: SqlStore) -> None:
        number = open_run(store, "aa")
        store.claim(number, [claim(0)])
        again = (claim(1, refresh=True), claim(2, refresh=True))
        assert ask(store, number, *again) == [MINE, BUSY]


def test_of_many_that_ask_at_once_one_makes_each(url: str) -> None:
    keys = [index.to_bytes(16) for index in range(300)]
    verdicts: dict[int, list[CacheVerdict]] = {}
    stores = [open_store(url) for _ in range(4)]
    numbers = [open_run(store, f"{n:x}{n:x}") for n, store in enumerate(stores)]
    together = threading.Barrier(len(stores))

    def claim_all(n: int) -> None:
        # Each in another order.
        claims = [claim(0, key) for key in keys[n * 40 :] + keys[: n * 40]]
        together.wait()
        answers = stores[n].claim(numbers[n], claims)
        by_key = {each.key: answer.verdict for each, answer in zip(claims, answers, strict=True)}
        verdicts[n] = [by_key[key] for key in keys]

    threads = [threading.Thread(target=claim_all, args=[n]) for n in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    of_each_key = [sorted(each) for each in zip(*verdicts.values(), strict=True)]
    assert of_each_key == [[MINE, BUSY, BUSY, BUSY]] * len(keys)


def test_dead_claims_are_taken_by_one_of_many(url: str) -> None:
    keys = [index.to_bytes(16) for index in range(300)]
    dead = open_store(url)
    dead.claim(open_run(dead, "dead"), [claim(0, key) for key in keys])
    dead.close()
    stores = [open_store(url) for _ in range(3)]
    numbers = [open_run(store, f"{n:x}{n:x}") for n, store in enumerate(stores)]
    together = threading.Barrier(len(stores))
    verdicts: list[list[CacheVerdict]] = []

    def claim_all(n: int) -> None:
        together.wait()
        verdicts.append(ask(stores[n], numbers[n], *(claim(0, key) for key in keys)))

    threads = [threading.Thread(target=claim_all, args=[n]) for n in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert [sorted(each) for each in zip(*verdicts, strict=True)] == [[MINE, BUSY, BUSY]] * 300
