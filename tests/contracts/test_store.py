"""The Store port's promises, kept by every store."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdproxy.core.ports import Batch, Store, Watermark
from kdproxy.storage.disk import WATERMARK, DiskStore
from kdproxy.storage.memory import MemoryStore

ODD_NAMES = [
    "",
    " ",
    "a/b",
    "a//b",
    "'; DROP TABLE Cache; --",
    'quote"',
    "percent%_",
    "back\\slash",
    "../../x",
    "line\nbreak",
    "nul\0inside",
    "nul\0",
    "tab\t",
    "Grüße",
    "Gru\u0308ße",
    "\ue000",
    "\U0001f600",
    "\U0010ffff",
    "a/\U0010ffff",
    "a/\U0010ffffz",
    "x" * 10_000,
    "count",
    "size",
]
ODD_VALUES = [b"", b"\0", b"\xff" * 1000, "text".encode("utf-16"), b"\x80\x04N.", b"x" * (2 << 20)]

Make = Callable[[], Store]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes an empty store; all are closed at the end."""
    made: list[Store] = []

    def make_store() -> Store:
        store: Store = MemoryStore() if request.param == "memory" else DiskStore(tmp_path / str(len(made)))
        made.append(store)
        return store

    yield make_store
    for store in made:
        store.close()


@pytest.fixture
def store(make: Make) -> Store:
    return make()


def put(store: Store, **values: bytes) -> None:
    store.apply(Batch(puts=values))


def everything(store: Store) -> dict[str, bytes]:
    return dict(store.scan(""))


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.get("a") is None
    assert store.get_all(["a"]) == store.get_all([]) == {}
    assert list(store.scan("")) == []
    assert store.watermark() is None


def test_values_are_replaced_and_deleted(store: Store) -> None:
    put(store, a=b"1", b=b"2")
    put(store, a=b"3")
    assert (store.get("a"), store.get("b")) == (b"3", b"2")
    store.apply(Batch(puts={"c": b"4"}, deletes=frozenset({"a", "never"})))
    assert everything(store) == {"b": b"2", "c": b"4"}


def test_thousands_of_names_are_looked_up_at_once(store: Store) -> None:
    values = {f"name {number}": b"%d" % number for number in range(2_345)}
    store.apply(Batch(puts=values))
    assert store.get_all(list(values)) == values
    assert store.get_all([f"name {number}" for number in range(2_300, 9_999)]) == dict(list(values.items())[2_300:])


def test_what_a_batch_both_puts_and_deletes_is_gone(store: Store) -> None:
    store.apply(Batch(puts={"a": b"1"}, deletes=frozenset({"a"})))
    assert store.get("a") is None


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: f"{len(value)} bytes")
def test_a_value_may_be_any_bytes(store: Store, value: bytes) -> None:
    put(store, a=value)
    assert store.get("a") == value
    assert type(store.get("a")) is bytes


def test_names_may_be_any_text(store: Store) -> None:
    values = {name: str(place).encode() for place, name in enumerate(ODD_NAMES)}
    store.apply(Batch(puts=values))
    assert {name: store.get(name) for name in ODD_NAMES} == values
    assert store.get_all([*ODD_NAMES, "never", *ODD_NAMES]) == values
    assert list(store.scan("")) == sorted(values.items())
    for prefix in ("a", "a/", "nul\0", "\U0010ffff", "x" * 9_999, "g"):
        assert list(store.scan(prefix)) == sorted(item for item in values.items() if item[0].startswith(prefix))
    store.apply(Batch(puts={}, deletes=frozenset(ODD_NAMES)))
    assert everything(store) == {}


@pytest.mark.parametrize("count", [999, 1_000, 1_001, 2_000, 3_456])
def test_a_scan_of_many_is_whole_and_in_order(store: Store, count: int) -> None:
    names = [f"a/{number:05d}" for number in range(count)]
    values = {name: name.encode() for name in random.Random(count).sample(names, count)}
    store.apply(Batch(puts={**values, "Z": b"before", "a": b"before", "a0": b"after", "b/1": b"after"}))
    assert list(store.scan("a/")) == [(name, name.encode()) for name in names]
    assert [name for name, _ in store.scan("a/0001")] == [name for name in names if name.startswith("a/0001")]


def test_a_scan_may_be_left_and_the_store_changed_meanwhile(store: Store) -> None:
    store.apply(Batch(puts={f"a/{number:05d}": b"1" for number in range(2_500)}))
    scan = store.scan("a/")
    seen = [next(scan)[0] for _ in range(10)]
    store.apply(Batch(puts={"a/02499": b"2"}, deletes=frozenset({"a/02000"})))
    rest = dict(scan)
    assert seen[0] == "a/00000"
    assert len(rest) in (2_489, 2_490)  # a page that was read before the change may still hold the deleted one


def test_the_watermark_is_the_last_one_given(store: Store) -> None:
    mark = Watermark(3, 2**40, 'ab"}\n\\é')
    store.apply(Batch(puts={"a": b"1"}, watermark=mark))
    store.apply(Batch(puts={"b": b"1"}))
    assert store.watermark() == mark
    later = Watermark(4, 0, "")
    store.apply(Batch(puts={}, watermark=later))
    assert store.watermark() == later


class Refusing(Mapping[str, bytes]):
    """A batch's puts that fail in the middle."""

    def __iter__(self) -> Iterator[str]:
        yield "a"
        yield "new"
        raise OSError("no")

    def __getitem__(self, name: str) -> bytes:
        return b"2"

    def __len__(self) -> int:
        return 3


def test_a_batch_that_fails_changes_nothing(store: Store) -> None:
    mark = Watermark(1, 1, "x")
    store.apply(Batch(puts={"a": b"1"}, watermark=mark))
    with pytest.raises(Exception, match="no"):
        store.apply(Batch(puts=Refusing(), deletes=frozenset({"a"}), watermark=Watermark(2, 2, "y")))
    assert everything(store) | {WATERMARK: b""} == {"a": b"1", WATERMARK: b""}
    assert store.watermark() == mark
    put(store, a=b"3")
    assert store.get("a") == b"3"


def test_clear_drops_everything(store: Store) -> None:
    store.apply(Batch(puts={f"n{number}": b"1" for number in range(1_500)}, watermark=Watermark(1, 1, "x")))
    store.clear()
    assert everything(store) == {}
    assert store.watermark() is None
    put(store, a=b"1")
    assert everything(store) == {"a": b"1"}


def test_another_thread_reads_while_one_writes(store: Store) -> None:
    """As the event loop does: every batch is seen whole or not at all."""
    put(store, a=b"0", b=b"0")
    is_done = threading.Event()
    torn: list[tuple[bytes | None, bytes | None]] = []

    def read() -> int:
        reads = 0
        while not is_done.is_set() or reads == 0:
            # `b` is read after `a`, so it may be newer, never older.
            first, second = store.get("a"), store.get("b")
            reads += 1
            if first is None or second is None or int(second) < int(first):
                torn.append((first, second))
        return reads

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for number in range(1, 200):
            put(store, a=str(number).encode(), b=str(number).encode())
        is_done.set()
        assert reading.result() > 0
    assert torn == []


NAMES = st.text("ab/", max_size=3)
BATCHES = st.builds(
    Batch,
    puts=st.dictionaries(NAMES, st.binary(max_size=3), max_size=4),
    deletes=st.frozensets(NAMES, max_size=3),
    watermark=st.none() | st.builds(Watermark, st.integers(0, 9), st.integers(0, 2**50), st.text("abc")),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(BATCHES, max_size=5))
def test_any_batches_leave_what_a_dict_would_hold(make: Make, batches: list[Batch]) -> None:
    store = make()
    model: dict[str, bytes] = {}
    mark = None
    for batch in batches:
        store.apply(batch)
        model = {name: value for name, value in {**model, **batch.puts}.items() if name not in batch.deletes}
        mark = batch.watermark or mark
        found = everything(store)
        found.pop(WATERMARK, None)
        assert found == model
        assert store.watermark() == mark
