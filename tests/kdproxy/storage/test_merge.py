"""What lives after journals were put together: the same whatever the order, and however often. A model says it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.models import Address, Answer, Entry, Form, LineName, NamedRecord, Record, Seat, Tombstone
from kdproxy.core.ports import Location
from kdproxy.storage import names
from kdproxy.storage.fold import Fold
from kdproxy.storage.sample_row import unpack

KEYS = ("k1", "k2")
FORMS = (Form.JSON, Form.SSE)
Live = dict[tuple[str, int], dict[LineName, set[Form]]]


def entry(key: str, form: Form, *, generation: LineName | None = None, replaces: tuple[LineName, ...] = ()) -> Entry:
    return Entry(
        address=Address("default", key),
        upstream="u",
        provider="openai",
        endpoint="chat.completions",
        method="POST",
        path="/v1/chat/completions",
        query="",
        request_headers=(),
        request=None,
        prompt_hash=None,
        model=None,
        answer=Answer(status=200, headers=(), body=b"", form=form),
        cost_usd=None,
        created_at=0.0,
        elapsed_seconds=None,
        generation=generation,
        replaces=replaces,
    )


def tombstone(key: str, withdraws: tuple[LineName, ...]) -> Tombstone:
    return Tombstone(
        namespace="default", key=key, ordinal=0, kind="answer", reason="", created_at=0.0, withdraws=withdraws
    )


@st.composite
def journals(draw: st.DrawFn, origin: str, version: int) -> list[NamedRecord]:
    """A journal of one life, as a writer would make it; names of other lives' generations may be named as ended."""
    lines: list[NamedRecord] = []
    of_key: dict[str, list[LineName]] = {
        key: [LineName("ff" * 12, 2 * at + number) for number in range(2)] for at, key in enumerate(KEYS)
    }
    for number in range(draw(st.integers(0, 8))):
        name = LineName(f"{origin}{number:02x}" if version == 1 else origin + "00", 0 if version == 1 else number)
        key, form = draw(st.sampled_from(KEYS)), draw(st.sampled_from(FORMS))
        known = of_key[key]
        some = tuple(draw(st.lists(st.sampled_from(known), max_size=2, unique=True))) if version > 1 else ()
        match draw(st.sampled_from(["answer", "form", "refresh", "tombstone", "seat"])):
            case "form" if version > 1:
                record: Record = entry(key, form, generation=draw(st.sampled_from(known)))
            case "refresh" if version > 1:
                record = entry(key, form, replaces=some)
                known.append(name)
            case "tombstone" if version == 1 or some:
                record = tombstone(key, some)
            case "seat" if version > 1:
                record = Seat(
                    address=Address("default", "seat"),
                    key_version=2,
                    generation=draw(st.sampled_from(known)),
                    home=Address("default", key),
                    created_at=0.0,
                )
            case _:
                record = entry(key, form)
                known.append(name)
        lines.append(NamedRecord(record, name, version))
    return lines


@dataclass
class Model:
    """The rule, in one line: a generation lives where no line ends it. Version 1 is read in its own order."""

    lines: Sequence[NamedRecord]
    ended: set[LineName] = field(default_factory=set)

    def live(self) -> Live:
        alive: Live = {}
        for record, _, version in self.lines:
            if version > 1 and isinstance(record, Entry):
                self.ended |= set(record.replaces)
            if version > 1 and isinstance(record, Tombstone):
                self.ended |= set(record.withdraws)
        slots = self.slots()
        for record, name, version in self.lines:
            if not isinstance(record, Entry):
                continue
            key, form, generation = record.address.key, record.answer.form, record.generation or name
            is_there = generation not in self.ended and (version > 1 or slots.get((key, form)) == name)
            if is_there:
                alive.setdefault((key, 0), {}).setdefault(generation, set()).add(form)
        return alive

    def slots(self) -> dict[tuple[str, Form], LineName]:
        """What version 1 says lives: of each form the last, and none behind a tombstone."""
        slots: dict[tuple[str, Form], LineName] = {}
        for record, name, version in self.lines:
            if version > 1:
                continue
            if isinstance(record, Entry):
                slots[record.address.key, record.answer.form] = name
            elif isinstance(record, Tombstone):
                for form in FORMS:
                    last = slots.pop((record.key, form), None)
                    self.ended |= set() if last is None else {last}
        return slots


def folded(lines: Sequence[NamedRecord], pages: int = 1) -> tuple[Live, dict[str, int]]:
    """What the index holds after reading lines, in so many goes."""
    rows: dict[str, bytes] = {}
    counters = names.Counters()
    said: dict[Location, Record] = {}
    places = count()
    size = -(-len(lines) // pages) or 1
    for start in range(0, len(lines), size):
        fold = Fold(rows.get, counters, said.get)
        for named in lines[start : start + size]:
            location = Location(1, next(places), 1)
            fold.take(named, location)
            said[location] = named.record
        rows.update(fold.changes)
        counters = fold.counters
    live: Live = {}
    for name, row in rows.items():
        if name.startswith("s/"):
            _, _, key, ordinal = name.split("/")
            found = {
                each.name: {Form(recording.form) for recording in each.recordings}
                for each in unpack(row)
                if each.home is None
            }
            if found:
                live[key, int(ordinal, 16)] = found
    return live, {upstream: number for upstream, number in counters.answers.items() if number}


def counted(live: Live) -> dict[str, int]:
    number = sum(len(forms) for generations in live.values() for forms in generations.values())
    return {"u": number} if number else {}


A, B, OLD = (journals(origin, version) for origin, version in (("aa" * 11, 2), ("bb" * 11, 2), ("cc" * 11, 1)))


@given(A, B, OLD, st.permutations([0, 1, 2]), st.integers(1, 4))
def test_journals_put_together_in_any_order_keep_the_same_alive(
    a: list[NamedRecord], b: list[NamedRecord], old: list[NamedRecord], order: list[int], pages: int
) -> None:
    expected = Model([*a, *b, *old]).live()
    parts = [a, b, old]
    lines = [named for number in order for named in parts[number]]
    assert folded(lines, pages) == (expected, counted(expected))
    twice = [named for number in (*order, *order) for named in parts[number]]
    assert folded(twice, pages) == (expected, counted(expected)), "a journal that comes twice changes nothing"


@given(A, B, st.randoms(use_true_random=False))
def test_lines_of_version_2_may_come_in_any_order(a: list[NamedRecord], b: list[NamedRecord], random: object) -> None:
    lines = [*a, *b]
    expected = Model(lines).live()
    random.shuffle(lines)  # type: ignore[attr-defined]
    assert folded(lines) == (expected, counted(expected))


@pytest.mark.parametrize("is_first", [False, True])
def test_a_tombstone_of_version_1_ends_nothing_of_version_2(is_first: bool) -> None:
    new = NamedRecord(entry("k1", Form.JSON), LineName("aa" * 12, 1), 2)
    old = NamedRecord(entry("k1", Form.JSON), LineName("cc" * 12, 0), 1)
    ending = NamedRecord(tombstone("k1", ()), LineName("cd" * 12, 0), 1)
    lines = [old, ending, new] if is_first else [new, old, ending]
    assert folded(lines)[0] == {("k1", 0): {new.name: {Form.JSON}}}
