"""The history of a run is the same whether its lines are read in blocks or one by one."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdproxy.core.call_event import Sent, encode_event
from kdproxy.core.models import LineName
from kdproxy.core.run_event import Opened, Restored, Returned, RunEvent, Unread, Used, encode_run_event
from kdproxy.core.run_history import History, Sample
from kdproxy.storage import run_reading
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.disk import DiskStore
from kdproxy.storage.event_reading import ROW
from kdproxy.storage.journal import Journal
from kdproxy.storage.log_files import EVENT_FILES
from kdproxy.storage.run_reading import read_history

ORIGIN, OTHER = "ab" * 12, "cd" * 12
ATTEMPTS = [LineName(ORIGIN, 1), LineName(ORIGIN, 2)]
STRANGER = LineName(ORIGIN, 3)
KEYS = [f"{number:032x}" for number in range(3)]


def line(event: RunEvent | Sent, seq: int, origin: str = ORIGIN) -> bytes:
    name = LineName(origin, seq)
    return encode_event(event, name) if isinstance(event, Sent) else encode_run_event(event, name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(folder: Path, lines: list[bytes]) -> History:
    (folder / "events.jsonl").write_bytes(b"".join(lines))
    files = Journal(folder, segment_bytes=1 << 62, files=EVENT_FILES, is_read_only=True)
    try:
        return read_history(files, ATTEMPTS)
    finally:
        files.close()


def one_by_one(lines: list[bytes]) -> History:
    found = History()
    for raw in b"".join(lines).splitlines(keepends=True):
        run_reading._take(found, raw, {str(name) for name in ATTEMPTS})
    return found


def columns(history: History) -> list[object]:
    named = ("_kinds", "_of", "_ordinal", "_seq", "_restores", "_latest", "_counted", "_last", "_attempts")
    keys, scopes = list(history._keys), list(history._scopes)
    return [
        *(getattr(history, name) for name in named),
        [keys[key] for key in history._key if keys],
        [scopes[scope] for scope in history._scope],
    ]


_attempt = st.sampled_from([*ATTEMPTS, STRANGER])
_key, _ordinal = st.sampled_from(KEYS), st.integers(0, 5)
_used = st.builds(Used, _attempt, _key, _ordinal, st.sampled_from(["", "a", "b.c"]), st.booleans())
_events = st.one_of(
    _used,
    _used,
    _used,
    st.just(Sent("openai", 1.0, run="r")),
    st.builds(Returned, _attempt, _key, _ordinal),
    st.builds(Unread, _attempt, _key, _ordinal, st.just(1.0), st.booleans()),
    st.builds(Restored, _attempt, _attempt, st.none(), st.just(1.0)),
    st.builds(Opened, st.just("r"), st.just("1"), st.just(1.0)),
)


@given(st.lists(_events, max_size=40), st.sampled_from([1, 3, 1 << 17]), st.integers(0, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_blocks_give_what_lines_give(folder: Path, events: list[RunEvent | Sent], block: int, damaged: int) -> None:
    lines = [line(event, 10 + seq) for seq, event in enumerate(events)]
    if damaged < len(lines):
        lines[damaged] = lines[damaged].replace(b'"ordinal":', b'"ordinal":1', 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("kdproxy.storage.journal._BLOCK_BYTES", block * 100)
        assert columns(read(folder, lines)) == columns(one_by_one(lines))


def test_a_line_twice_counts_once_and_a_damaged_one_not_at_all(folder: Path) -> None:
    used = [line(Used(ATTEMPTS[0], KEYS[0], ordinal), 10 + ordinal) for ordinal in range(4)]
    damaged = used[3].replace(b'"ordinal":3', b'"ordinal":9')
    history = read(folder, [*used[:2], *used[:3], damaged])
    assert dict(history.ordinals(ATTEMPTS[0]).used()) == {KEYS[0]: 3}


def test_a_line_behind_a_torn_one_counts(folder: Path) -> None:
    used = [line(Used(ATTEMPTS[0], KEYS[0], ordinal), 10 + ordinal) for ordinal in range(3)]
    history = read(folder, [used[0], used[1][:-30], used[2]])
    assert history.latest_used(ATTEMPTS[0], 9) == [Sample(KEYS[0], 0), Sample(KEYS[0], 2)]


def test_a_block_of_used_lines_is_not_read_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line(Opened("r", "1", 1.0), 1)]
    lines += [line(Used(ATTEMPTS[0], KEYS[0], ordinal), 10 + ordinal) for ordinal in range(3_000)]
    lines += [line(Sent("openai", 1.0), 9_000)]
    monkeypatch.setattr(run_reading, "_take", None)
    assert len(read(folder, lines)) == 3_000


def test_a_history_says_what_was_used_last_and_what_was_not_read() -> None:
    attempt, history = ATTEMPTS[0], History()
    seqs = iter(range(10, 100))

    def take(*events: RunEvent) -> None:
        for event in events:
            history.take(LineName(ORIGIN, next(seqs)), event)

    first, second, third = (Sample(KEYS[0], ordinal) for ordinal in range(3))
    take(Used(attempt, *first), Used(attempt, *second, "a"), Used(attempt, *third))
    take(Unread(attempt, *first, 1.0, True), Unread(attempt, *third, 1.0))
    assert history.unread(attempt) == {first: True, third: False}
    assert history.used_by_scope(attempt) == {"": 2, "a": 1}
    assert history.latest_used(attempt, 2) == [second, third]
    take(Returned(attempt, *second))
    assert history.unread(attempt) == {first: True, third: False}
    take(Used(attempt, *second))
    assert history.unread(attempt) == {first: True}
    assert history.latest_used(attempt, 2) == [third, second]
    take(Returned(attempt, *first))
    assert history.unread(attempt) == {}
    assert history.deliveries() == {attempt: 2}
    assert history.has_scopes


def test_an_unread_event_is_no_scope() -> None:
    history = History()
    history.take(LineName(ORIGIN, 10), Used(ATTEMPTS[0], KEYS[0], 0))
    history.take(LineName(ORIGIN, 11), Unread(ATTEMPTS[0], KEYS[0], 0, 1.0, True))
    assert not history.has_scopes


# -- what a start reads ------------------------------------------------------------------------------------------------


def open_in(directory: Path) -> FileArchive:
    return FileArchive(
        Journal(directory, segment_bytes=1 << 30), lambda: DiskStore(directory / "index"), memory_bytes=0
    )


def use(archive: FileArchive, count: int) -> LineName:
    attempt = archive.calls.note(Opened("r", "1", 1.0))
    for ordinal in range(count):
        archive.calls.note(Used(attempt, KEYS[0], ordinal))
    return attempt


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_start_does_not_read_all_again_after_a_life_of_hits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    place = tmp_path / "one"
    place.mkdir()
    first = open_in(place)
    use(first, 3)
    first.close()
    second = open_in(place)
    use(second, 3)
    if is_killed:
        asyncio.run(second.calls.settle())
        ends_at = time.monotonic() + 10
        while second._life.origin.encode() not in (second.look_up([ROW])[0] or b""):
            assert time.monotonic() < ends_at
            time.sleep(0.005)
        use(second, 2)
        shutil.copytree(place, tmp_path / "copy")
    second.close()
    monkeypatch.setattr("kdproxy.storage.event_reading.read_all", None)
    third = open_in(tmp_path / "copy" if is_killed else place)
    assert len(third.run_list().runs) == (3 if is_killed else 2)
    third.close()


def test_a_start_without_an_index_passes_used_lines_by(tmp_path: Path) -> None:
    archive = open_in(tmp_path)
    attempt = use(archive, 100)
    archive.close()
    shutil.rmtree(tmp_path / "index")
    again = open_in(tmp_path)
    run = again.run_list().known("r")
    assert [each.name for each in run.attempts] == [attempt]
    mark = again.calls._calls.mark
    assert mark is not None
    assert mark.offset == (tmp_path / "events.jsonl").stat().st_size
    again.close()
