"""Who gets which sample, against a model that keeps plain sets; and an attempt read back from its events."""

import itertools
from random import Random

import pytest

from kdproxy.core.models import LineName
from kdproxy.core.run_event import Restored, Returned, RunEvent, Used
from kdproxy.core.run_history import History, UnknownCursor
from kdproxy.core.sampling import Ordinals, Taking

KEYS = ("a" * 32, "b" * 32)
SCOPES = ("", "w1", "w2")


class Model:
    """The rules of docs/samples.md, as sets."""

    def __init__(self) -> None:
        self.used: dict[str, dict[int, int]] = {key: {} for key in KEYS}
        self.held: dict[str, dict[int, int]] = {key: {} for key in KEYS}
        self.owner: dict[tuple[str, int], str] = {}

    def take(self, key: str, scope: str) -> int:
        ordinal = 0
        while (
            self.used[key].get(ordinal) or self.held[key].get(ordinal) or self.owner.get((key, ordinal), scope) != scope
        ):
            ordinal += 1
        return self.take_exactly(key, scope, ordinal)

    def take_exactly(self, key: str, scope: str, ordinal: int) -> int:
        self.held[key][ordinal] = self.held[key].get(ordinal, 0) + 1
        self.owner.setdefault((key, ordinal), scope)
        return ordinal


@pytest.mark.parametrize("seed", range(150))
def test_any_order_of_taking_delivering_and_leaving_gives_what_the_model_gives(seed: int) -> None:
    rng = Random(seed)
    scopes = SCOPES if seed % 2 else ("",)
    model, real, holds = Model(), Ordinals(), []
    if len(scopes) > 1:
        real.own_as({})
    for _ in range(400):
        if holds and rng.random() < 0.55:
            key, ordinal, is_used = holds.pop(rng.randrange(len(holds)))
            if not is_used and rng.random() < 0.7:
                real.use(key, ordinal)
                model.used[key][ordinal] = model.used[key].get(ordinal, 0) + 1
                if rng.random() < 0.2:
                    real.unuse(key, ordinal)
                    model.used[key][ordinal] -= 1
            real.release(key, ordinal)
            model.held[key][ordinal] -= 1
            continue
        key, scope = rng.choice(KEYS), rng.choice(scopes)
        if rng.random() < 0.1:
            wanted = rng.randrange(12)
            assert real.take(key, scope, Taking(wanted)) == model.take_exactly(key, scope, wanted)
            holds.append((key, wanted, False))
        else:
            ordinal = model.take(key, scope)
            assert real.take(key, scope) == ordinal
            holds.append((key, ordinal, False))
    counts = {key: sum(uses > 0 for uses in model.used[key].values()) for key in KEYS}
    assert {key: count for key, count in real.used() if count} == {key: n for key, n in counts.items() if n}


def test_a_fresh_sample_is_the_lowest_that_is_not_stored() -> None:
    ordinals = Ordinals()
    stored = {0, 1, 3}
    assert ordinals.take("k", "", Taking(is_fresh=True), stored.__contains__) == 2
    assert ordinals.take("k", "", Taking(is_fresh=True), stored.__contains__) == 4
    assert [ordinals.take("k") for _ in range(3)] == [0, 1, 3]


def test_only_a_client_whose_own_sample_may_come_back_waits() -> None:
    ordinals = Ordinals()
    assert not ordinals.may_return("k")
    first = ordinals.take("k")
    assert ordinals.may_return("k")
    ordinals.release("k", first)
    assert not ordinals.may_return("k")


def test_a_scope_gets_the_same_samples_in_each_attempt_however_scopes_interleave() -> None:
    rng = Random(3)
    log: list[tuple[LineName, RunEvent]] = []
    attempts = [LineName("a" * 24, number) for number in (1, 1000, 2000)]
    given: list[dict[str, list[int]]] = []
    for attempt in attempts:
        history = History()
        for name, event in log:
            history.take(name, event)
        ordinals = Ordinals()
        ordinals.own_as(history.owners())
        asking = [scope for scope in SCOPES for _ in range(5)]
        rng.shuffle(asking)
        got: dict[str, list[int]] = {scope: [] for scope in SCOPES}
        for place, scope in enumerate(asking):
            ordinal = ordinals.take("k", scope)
            ordinals.use("k", ordinal)
            ordinals.release("k", ordinal)
            got[scope].append(ordinal)
            log.append((attempt._replace(seq=attempt.seq + 1 + place), Used(attempt, "k", ordinal, scope)))
        assert sorted(itertools.chain(*got.values())) == list(range(15))
        given.append(got)
    assert given[0] == given[1] == given[2]


A, B = LineName("a" * 24, 1), LineName("a" * 24, 2)


def history_of(*events: RunEvent) -> History:
    found = History()
    for number, event in enumerate(events):
        found.take(LineName("a" * 24, 10 + number), event)
    return found


def next_of(ordinals: Ordinals, key: str = "k") -> int:
    return ordinals.take(key)


def test_a_cursor_is_a_moment_of_an_attempt_and_survives_later_restores() -> None:
    used = [Used(A, "k", number) for number in range(3)]
    cursor = LineName("a" * 24, 11)  # after the second
    restored = Restored(B, A, cursor, 1.0)
    history = history_of(*used, Used(B, "k", 0), restored, Used(B, "k", 2), Returned(A, "k", 1))
    assert next_of(history.ordinals(A, cursor, is_whole=False)) == 2
    assert next_of(history.ordinals(A)) == 1
    assert next_of(history.ordinals(B)) == 3
    assert next_of(history.ordinals(B, LineName("a" * 24, 13), is_whole=False)) == 1
    assert next_of(history.ordinals(B, LineName("a" * 24, 14), is_whole=False)) == 2
    assert next_of(history.ordinals(A, None, is_whole=False)) == 0
    with pytest.raises(UnknownCursor):
        history.ordinals(A, LineName("b" * 24, 11), is_whole=False)
    with pytest.raises(UnknownCursor):
        history.ordinals(B, cursor, is_whole=False)


def test_a_line_that_was_written_twice_counts_once() -> None:
    history = history_of(Used(A, "k", 0), Used(A, "k", 1))
    history.take(LineName("a" * 24, 10), Used(A, "k", 0))
    history.take(LineName("a" * 24, 11), Used(A, "k", 1))
    assert len(history) == 2


def test_a_sample_far_ahead_costs_nothing_when_its_attempt_is_read_back() -> None:
    history = history_of(Used(A, "k", 900_000, "", True), Used(A, "k", 0), Used(A, "k", 2))
    ordinals = history.ordinals(A)
    assert [ordinals.take("k") for _ in range(3)] == [1, 3, 4]
    assert dict(ordinals.used()) == {"k": 3}


def test_a_line_that_a_failed_sync_lost_counts_where_it_was_written_again() -> None:
    """Of the events 10, 11 and 12 the disk lost 10 and 11, which are written again behind 12; 12 comes twice."""
    history = History()
    for seq in (12, 10, 11, 12, 13):
        history.take(LineName("a" * 24, seq), Used(A, "k", seq - 10))
    assert len(history) == 4
    assert history.ordinals(A).take("k") == 4
