"""Identity is the sample: a form is a recording of it, and what ends it ends it in every form and under every key."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdproxy.core import record as record_format
from kdproxy.core.models import Address, Entry, Form, LineName, NamedRecord, Record, Seat, Start, Tombstone
from kdproxy.core.ports import Batch, Intent
from kdproxy.storage import names
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.log_files import ACTIVE_NAME

MakeEntry = Callable[..., Entry]


def keep(archive: FileArchive, *records: Record, intent: Intent = Intent.FILL, v1_key: str | None = None) -> None:
    async def keep_each() -> list[bool]:
        return [await archive.keep(record, intent=intent, v1_key=v1_key) for record in records]

    assert asyncio.run(keep_each()) == [True] * len(records)


def bodies(archive: FileArchive, address: Address) -> list[bytes | None]:
    answers = [archive.find(address, form) for form in Form]
    return [None if answer is None else answer.body for answer in answers]


def said(archive: FileArchive) -> list[NamedRecord]:
    found = [record_format.read(line.raw) for line in archive.lines()]
    return [named for named in found if not isinstance(named.record, Start)]


def as_v1(record: Record) -> bytes:
    """Write a record as a release wrote it that knew version 1 alone."""
    members = json.loads(record_format.encode(record))
    for later in ("v", "origin", "seq", "sha256"):
        del members[later]
    return record_format.seal(json.dumps({"v": 1, **members}, separators=(",", ":")).encode())


def tombstone(address: Address, *withdraws: LineName) -> Tombstone:
    return Tombstone(
        namespace=address.namespace,
        key=address.key,
        ordinal=address.ordinal,
        kind="answer",
        reason="test",
        created_at=0.0,
        withdraws=withdraws,
    )


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
@pytest.mark.parametrize("refreshed", list(Form))
def test_a_refresh_in_one_form_ends_the_sample_in_all(
    reopen: Any, make_entry: MakeEntry, refreshed: Form, memory_bytes: int
) -> None:
    archive = reopen(memory_bytes=memory_bytes)
    forms = [make_entry(form=form, body=b"old") for form in Form]
    keep(archive, *forms)
    for _ in range(2):  # from the second time on they may lie in memory
        assert bodies(archive, forms[0].address) == [b"old"] * 3
    keep(archive, make_entry(form=refreshed, body=b"new"), intent=Intent.REFRESH)
    for archive in reopen.twice(memory_bytes=memory_bytes):
        assert bodies(archive, forms[0].address) == [b"new" if form is refreshed else None for form in Form]
        assert {name: number for name, number in archive.snapshot().answers.items() if number} == {"openai": 1}


def test_the_second_form_belongs_to_the_generation_that_answers_and_a_second_answer_is_a_spare(
    reopen: Any, make_entry: MakeEntry
) -> None:
    archive = reopen()
    keep(archive, make_entry(body=b"1"), make_entry(form=Form.SSE, body=b"2"), make_entry(body=b"3"))
    address = make_entry().address
    for archive in reopen.twice():
        assert bodies(archive, address) == [b"1", b"2", None]
    first, second, spare = said(archive)
    assert isinstance(second.record, Entry)
    assert isinstance(spare.record, Entry)
    assert (second.record.generation, spare.record.generation) == (first.name, None)
    keep(archive, tombstone(address, first.name))
    for archive in reopen.twice():
        assert bodies(archive, address) == [b"3", None, None], "the spare answers where the first was withdrawn"
    keep(archive, make_entry(body=b"4"), intent=Intent.REFRESH)
    last = said(archive)[-1].record
    assert isinstance(last, Entry)
    assert last.replaces == (spare.name,)
    assert bodies(archive, address) == [b"4", None, None]


def test_what_was_ended_stays_ended_whatever_happens_to_what_ended_it(reopen: Any, make_entry: MakeEntry) -> None:
    archive = reopen()
    keep(archive, make_entry(body=b"old"))
    keep(archive, make_entry(body=b"new"), intent=Intent.REFRESH)
    keep(archive, tombstone(make_entry().address))
    for archive in reopen.twice():
        assert bodies(archive, make_entry().address) == [None] * 3
    [old, *_] = said(archive)
    with_generation = make_entry(form=Form.SSE, body=b"late")._replace(generation=old.name)
    archive.revise(lambda: [archive.seal(with_generation)])
    assert bodies(archive, make_entry().address) == [None] * 3, "also in a form that comes later"


def test_a_new_recording_takes_the_place_of_a_damaged_one_in_its_generation(
    reopen: Any, make_entry: MakeEntry, tmp_path: Path
) -> None:
    archive = reopen()
    keep(archive, make_entry(body=b"json"), make_entry(form=Form.SSE, body=b"sse"))
    archive.close()
    path = tmp_path / ACTIVE_NAME
    path.write_bytes(path.read_bytes().replace(b'"body":"json"', b'"body":"jsox"'))
    archive = reopen()
    assert bodies(archive, make_entry().address) == [None, b"sse", None]
    keep(archive, make_entry(body=b"again"))
    for archive in reopen.twice():
        assert bodies(archive, make_entry().address) == [b"again", b"sse", None]
        assert dict(archive.snapshot().answers) == {"openai": 2}


def test_record_mode_keeps_only_where_its_form_is_not_live(reopen: Any, make_entry: MakeEntry) -> None:
    archive = reopen()
    kept = (make_entry(body=b"1"), make_entry(form=Form.SSE), make_entry(1))
    keep(archive, *kept, make_entry(body=b"2"), make_entry(form=Form.SSE, body=b"2"), intent=Intent.RECORD)
    first, stream, other = [named.record for named in said(archive)]
    assert (first, other) == (kept[0], kept[2])
    assert stream == kept[1]._replace(generation=said(archive)[0].name)


def test_two_writes_of_one_group_see_each_other(reopen: Any, make_entry: MakeEntry) -> None:
    archive = reopen()

    async def together() -> None:
        await asyncio.gather(
            archive.keep(make_entry(body=b"1"), intent=Intent.REFRESH),
            archive.keep(make_entry(form=Form.SSE, body=b"2"), intent=Intent.REFRESH),
        )

    asyncio.run(together())
    assert bodies(archive, make_entry().address) == [None, b"2", None]


# -- two keys ---------------------------------------------------------------------------------------------------------

OLD, NEW = Address("default", "old"), Address("default", "new")


def start_with_v1(reopen: Any, make_entry: MakeEntry, path: Path) -> tuple[FileArchive, LineName]:
    """An archive whose journal holds one answer of version 1."""
    line = as_v1(make_entry(body=b"v1")._replace(address=OLD))
    (path / ACTIVE_NAME).write_bytes(line)
    return reopen(), record_format.read(line).name


def seat(generation: LineName, *, ordinal: int = 0) -> Seat:
    return Seat(address=NEW._replace(ordinal=ordinal), key_version=2, generation=generation, home=OLD, created_at=0.0)


def test_answers_with_keys_of_version_1_are_known(reopen: Any, make_entry: MakeEntry, tmp_path: Path) -> None:
    archive, _ = start_with_v1(reopen, make_entry, tmp_path)
    for archive in reopen.twice():
        assert archive.has_v1_keys
    keep(archive, make_entry()._replace(address=NEW, key_version=2))
    keep(archive, tombstone(OLD))
    for archive in reopen.twice():
        assert not archive.has_v1_keys


def test_a_refresh_ends_what_answered_under_the_old_key(reopen: Any, make_entry: MakeEntry, tmp_path: Path) -> None:
    archive, _ = start_with_v1(reopen, make_entry, tmp_path)
    keep(archive, make_entry(form=Form.SSE, body=b"new")._replace(address=NEW), intent=Intent.REFRESH, v1_key="old")
    for archive in reopen.twice():
        assert bodies(archive, OLD) == [None] * 3
        assert bodies(archive, NEW) == [None, b"new", None]
        assert not archive.has_v1_keys


@pytest.mark.parametrize("ending", ["tombstone of version 1", "tombstone by name", "refresh at the seat"])
@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_a_seat_answers_under_the_new_key_until_its_generation_is_ended(
    reopen: Any, make_entry: MakeEntry, tmp_path: Path, ending: str, memory_bytes: int
) -> None:
    archive, name = start_with_v1(reopen, make_entry, tmp_path)
    keep(archive, seat(name))
    for archive in reopen.twice(memory_bytes=memory_bytes):
        for _ in range(3):
            assert bodies(archive, OLD) == bodies(archive, NEW) == [b"v1", None, None]
    match ending:
        case "tombstone of version 1":
            line = as_v1(tombstone(OLD))
            archive.revise(lambda: [(record_format.read(line), line)])
        case "tombstone by name":
            keep(archive, tombstone(OLD, name))
        case _:
            keep(archive, make_entry(form=Form.SSE, body=b"new")._replace(address=NEW), intent=Intent.REFRESH)
    refreshed = b"new" if ending == "refresh at the seat" else None
    for archive in reopen.twice(memory_bytes=memory_bytes):
        assert bodies(archive, OLD) == [None] * 3
        assert bodies(archive, NEW) == [None, refreshed, None]


# -- what a start makes of older files --------------------------------------------------------------------------------


def test_an_index_of_an_earlier_release_is_made_anew(reopen: Any, make_entry: MakeEntry, tmp_path: Path) -> None:
    archive = reopen()
    keep(archive, make_entry())
    archive.snapshot()
    old = {names.OLD_WATERMARK: b'[1,0,""]', "a/left/over": b"x" * 16}
    archive._writer.call(lambda: archive._store.apply(Batch(puts=old, deletes=frozenset({"watermark/2"}))))
    archive = reopen()
    assert archive.report.is_rebuilt
    assert bodies(archive, make_entry().address) == [b"answer 0", None, None]
    assert not reopen().report.is_rebuilt


def test_a_whole_line_behind_a_torn_one_is_read(reopen: Any, make_entry: MakeEntry, tmp_path: Path) -> None:
    """Two files put together, of which the first ended within a line."""
    torn = record_format.encode(make_entry(0))[:-50]
    rest = record_format.encode(make_entry(1)) + record_format.encode(make_entry(2))
    (tmp_path / ACTIVE_NAME).write_bytes(torn + rest)
    archive = reopen()
    assert [bodies(archive, make_entry(number).address)[0] for number in range(3)] == [None, b"answer 1", b"answer 2"]
    [damage] = archive.report.damage
    assert archive.read(damage.location) == torn
    keep(archive, make_entry(3))
    assert not reopen().report.is_rebuilt
