"""The archive: durable, findable, withdrawn, superseded; and what a start reads again."""

import asyncio
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from kdproxy.core import record as record_format
from kdproxy.core.models import Address, Entry, Form, Prompt, Record, Start, Tombstone, Turn
from kdproxy.core.ports import Intent
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.log_files import ACTIVE_NAME
from tests.kdproxy.sample import keep_all

MakeEntry = Callable[..., Entry]


def keep(archive: FileArchive, *records: Record, intent: Intent = Intent.FILL) -> None:
    async def keep_each() -> list[bool]:
        return [await archive.keep(record, intent=intent) for record in records]

    assert asyncio.run(keep_each()) == [True] * len(records)


def said(archive: FileArchive) -> list[Record]:
    """Return what the journal says, but for the first line of each life."""
    records = [record_format.decode(line.raw) for line in archive.lines()]
    return [record for record in records if not isinstance(record, Start)]


def body(archive: FileArchive, entry: Entry) -> bytes | None:
    answer = archive.find(entry.address, entry.answer.form)
    return None if answer is None else answer.body


def prompt(number: int = 0, *, response: str = "4") -> Prompt:
    return Prompt(
        namespace="default",
        match_key=f"{number:064x}",
        ordinal=0,
        model="m",
        turns=(Turn(role="user", text="2 + 2?"),),
        response=response,
        prompt_hash="h",
        created_at=1.0,
    )


def tombstone(record: Entry | Prompt) -> Tombstone:
    if isinstance(record, Prompt):
        return Tombstone(
            namespace=record.namespace,
            key=record.match_key,
            ordinal=record.ordinal,
            kind="prompt",
            reason="test",
            created_at=2.0,
        )
    address = record.address
    return Tombstone(
        namespace=address.namespace,
        key=address.key,
        ordinal=address.ordinal,
        kind="answer",
        reason="test",
        created_at=2.0,
    )


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_what_is_kept_is_found_at_once_and_after_a_start(reopen: Any, make_entry: MakeEntry, memory_bytes: int) -> None:
    archive = reopen(memory_bytes=memory_bytes)
    entries = [make_entry(number) for number in range(20)]
    for entry in entries:
        assert archive.find(entry.address, Form.JSON) is None
        keep(archive, entry)
        assert archive.find(entry.address, Form.JSON) == entry.answer
    archive = reopen(memory_bytes=memory_bytes)
    for _ in range(2):
        assert [archive.find(entry.address, Form.JSON) for entry in entries] == [entry.answer for entry in entries]


def test_an_answer_lies_in_memory_from_its_second_look_up_on(
    reopen: Any, make_entry: MakeEntry, tmp_path: Path
) -> None:
    archive = reopen(memory_bytes=1 << 20)
    keep(archive, make_entry(0), make_entry(1))
    assert [body(archive, make_entry(number)) for number in (0, 1, 0)] == [b"answer 0", b"answer 1", b"answer 0"]
    for number in range(2):
        damage(tmp_path / ACTIVE_NAME, number)
    assert (body(archive, make_entry(0)), body(archive, make_entry(1))) == (b"answer 0", None)


def test_addresses_and_forms_are_kept_apart(reopen: Any, make_entry: MakeEntry) -> None:
    archive = reopen()
    entries = [
        make_entry(1, body=b"a"),
        make_entry(1, body=b"b", form=Form.SSE),
        make_entry(1, body=b"\xff", form=Form.BINARY),
        make_entry(1, body=b"c", ordinal=1),
        make_entry(1, body=b"d", namespace="other"),
        make_entry(2, body=b"e"),
    ]
    keep(archive, *entries)
    for archive in reopen.twice():
        assert [body(archive, entry) for entry in entries] == [b"a", b"b", b"\xff", b"c", b"d", b"e"]
    assert archive.find(make_entry(1, ordinal=2).address, Form.JSON) is None
    assert archive.find(make_entry(2).address, Form.SSE) is None


def test_a_prompt_is_found_by_its_match_key(reopen: Any) -> None:
    archive = reopen()
    assert archive.find_prompt("default", prompt().match_key) is None
    keep(archive, prompt(), prompt(1, response="5"))
    for archive in reopen.twice():
        assert archive.find_prompt("default", prompt().match_key) == prompt()
        assert archive.find_prompt("default", prompt(1).match_key) == prompt(1, response="5")
        assert archive.find_prompt("other", prompt().match_key) is None
        assert archive.find_prompt("default", prompt().match_key, 1) is None
        assert archive.find(Address(namespace="default", key=prompt().match_key), Form.JSON) is None


def test_response_ids_are_known_per_namespace(reopen: Any, make_entry: MakeEntry) -> None:
    archive = reopen()
    keep(archive, make_entry(response_id="resp_1"))
    for archive in reopen.twice():
        assert archive.knows_response("default", "resp_1")
        assert not archive.knows_response("other", "resp_1")
        assert not archive.knows_response("default", "resp_2")


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_a_superseding_answer_is_found_and_counted_once(reopen: Any, make_entry: MakeEntry, memory_bytes: int) -> None:
    archive = reopen(memory_bytes=memory_bytes)
    keep(archive, make_entry(1, upstream="anthropic"), prompt())
    for text in (b"old", b"new", b"newest"):
        keep(archive, make_entry(body=text), intent=Intent.REFRESH)
        for _ in range(2):  # from the second time on it may lie in memory
            assert body(archive, make_entry()) == text
        assert dict(archive.snapshot().answers) == {"openai": 1, "anthropic": 1}
        assert archive.snapshot().prompts == 1
    archive = reopen(memory_bytes=memory_bytes)
    assert body(archive, make_entry()) == b"newest"
    assert len(said(archive)) == 5


@pytest.mark.parametrize("is_indexed", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_a_tombstone_hides_all_forms_and_nothing_else(
    reopen: Any, make_entry: MakeEntry, is_indexed: bool, memory_bytes: int
) -> None:
    archive = reopen(memory_bytes=memory_bytes)
    forms = [make_entry(form=form) for form in Form]
    others = [make_entry(ordinal=1), make_entry(namespace="other"), make_entry(1)]
    keep(archive, *forms, *others, prompt())
    for _ in range(2):  # from the second time on they may lie in memory
        assert None not in [body(archive, entry) for entry in forms]
    if is_indexed:
        archive.snapshot()
    keep(archive, tombstone(forms[0]))
    for archive in reopen.twice(memory_bytes=memory_bytes):
        assert [body(archive, entry) for entry in forms] == [None] * 3
        assert [body(archive, entry) for entry in others] == [entry.answer.body for entry in others]
        assert archive.find_prompt("default", prompt().match_key) == prompt()
        assert dict(archive.snapshot().answers) == {"openai": 3}
    assert len(said(archive)) == 8  # all stay in the journal
    keep(archive, forms[0])
    assert body(archive, forms[0]) == forms[0].answer.body
    assert dict(archive.snapshot().answers) == {"openai": 4}


def test_a_tombstone_of_a_prompt_hides_the_prompt_alone(reopen: Any, make_entry: MakeEntry) -> None:
    archive = reopen()
    keep(archive, prompt(), make_entry(), prompt(1), tombstone(prompt()))
    for archive in reopen.twice():
        assert archive.find_prompt("default", prompt().match_key) is None
        assert archive.find_prompt("default", prompt(1).match_key) == prompt(1)
        assert body(archive, make_entry()) is not None
        assert archive.snapshot().prompts == 1


@pytest.mark.parametrize("cut", [0, 3, 7, 12])
def test_any_mixture_leaves_the_same_index_as_one_made_anew(
    reopen: Any, make_entry: MakeEntry, tmp_path: Path, cut: int
) -> None:
    """The sums and rows kept along the way are those that a reading of the whole journal gives."""
    records: list[Record] = [
        make_entry(0),
        tombstone(make_entry(0)),
        make_entry(0, body=b"again"),
        make_entry(0, body=b"sse", form=Form.SSE),
        tombstone(make_entry(0)),
        tombstone(make_entry(0)),
        make_entry(1, upstream="b"),
        make_entry(1, upstream="b"),
        prompt(),
        tombstone(prompt()),
        prompt(),
        tombstone(make_entry(9)),
        make_entry(0, body=b"last"),
    ]
    archive = reopen()
    for part in (records[:cut], records[cut:]):
        keep_all(archive, part)
        keep_all(archive, [make_entry(0, body=b"refreshed"), make_entry(7)], intent=Intent.REFRESH)
    snapshot, rows = archive.snapshot(), dict(archive.index())
    archive.close()
    shutil.rmtree(tmp_path / "index")
    archive = reopen()
    assert archive.report.indexed_lines == len(list(archive.lines()))
    assert archive.snapshot() == snapshot
    assert dict(archive.index()) == rows
    assert {name: count for name, count in snapshot.answers.items() if count} == {"openai": 2, "b": 2}
    assert snapshot.prompts == 1


def test_lines_come_in_the_order_of_keeping_over_all_segments(
    reopen: Any, make_entry: MakeEntry, tmp_path: Path
) -> None:
    archive = reopen(segment_bytes=2_000)
    entries = [make_entry(number) for number in range(30)]
    keep(archive, *entries)
    assert archive.snapshot().segments > 3
    for archive in reopen.twice(segment_bytes=2_000):
        assert said(archive) == entries
        assert [archive.read(line.location) for line in archive.lines()] == [line.raw for line in archive.lines()]
        assert [body(archive, entry) for entry in entries] == [entry.answer.body for entry in entries]
        end = archive.snapshot().end
        assert list(archive.lines(end)) == []
        assert archive.snapshot().journal_bytes == sum(
            path.stat().st_size for path in tmp_path.glob("api_recovery*.jsonl")
        )


# -- what a start reads again ---------------------------------------------------------------------------------


def append_lines(path: Path, records: Iterable[Record]) -> None:
    with path.open("ab") as file:
        file.writelines(map(record_format.encode, records))


def test_a_start_reads_only_what_the_index_lacks(reopen: Any, make_entry: MakeEntry, tmp_path: Path) -> None:
    keep(reopen(), *(make_entry(number) for number in range(50)))
    assert reopen().report.indexed_lines == 0
    reopen().close()
    append_lines(tmp_path / ACTIVE_NAME, [make_entry(number) for number in range(50, 53)])
    archive = reopen()
    assert (archive.report.indexed_lines, archive.report.is_rebuilt) == (3, False)
    assert [body(archive, make_entry(number)) for number in (0, 49, 50, 52)] == [
        b"answer 0",
        b"answer 49",
        b"answer 50",
        b"answer 52",
    ]
    assert dict(archive.snapshot().answers) == {"openai": 53}
    assert reopen().report.indexed_lines == 0


def test_an_index_that_is_gone_is_made_anew(reopen: Any, make_entry: MakeEntry, tmp_path: Path) -> None:
    archive = reopen(segment_bytes=2_000)
    keep(archive, *(make_entry(number) for number in range(20)))
    archive.close()
    shutil.rmtree(tmp_path / "index")
    archive = reopen(segment_bytes=2_000)
    assert archive.report.indexed_lines == 21, "with the first line of the life"
    assert all(body(archive, make_entry(number)) for number in range(20))


@pytest.mark.parametrize("change", ["other journal", "shorter journal", "no journal", "missing segment"])
def test_an_index_of_another_journal_is_made_anew(
    reopen: Any, make_entry: MakeEntry, tmp_path: Path, change: str
) -> None:
    archive = reopen(segment_bytes=5_000)
    keep(archive, *(make_entry(number) for number in range(20)))
    archive.close()
    segments = sorted(tmp_path.glob("api_recovery.0*.jsonl"))
    assert segments
    match change:
        case "other journal":
            (tmp_path / ACTIVE_NAME).write_bytes(b"")
            append_lines(tmp_path / ACTIVE_NAME, [make_entry(number) for number in range(100, 130)])
        case "shorter journal":
            lines = (tmp_path / ACTIVE_NAME).read_bytes().splitlines(keepends=True)
            (tmp_path / ACTIVE_NAME).write_bytes(b"".join(lines[:-1]))
        case "no journal":
            for path in tmp_path.glob("api_recovery*"):
                path.unlink()
        case _:
            segments[-1].unlink()
    archive = reopen(segment_bytes=5_000)
    assert archive.report.is_rebuilt
    expected = [record_format.decode(line.raw) for line in archive.lines()]
    found = {entry.address.key for entry in expected if isinstance(entry, Entry)}
    for number in range(130):
        entry = make_entry(number)
        assert (body(archive, entry) is not None) == (entry.address.key in found)
    assert archive.snapshot().answers.get("openai", 0) == len(found)


def test_a_torn_tail_is_cut_and_reported(reopen: Any, make_entry: MakeEntry, tmp_path: Path) -> None:
    keep(reopen(), make_entry(0))
    reopen().close()
    line = record_format.encode(make_entry(1))
    with (tmp_path / ACTIVE_NAME).open("ab") as file:
        file.write(line[:-1])
    archive = reopen()
    assert archive.report.torn_bytes == len(line) - 1
    assert body(archive, make_entry(1)) is None
    keep(archive, make_entry(1))
    archive = reopen()
    assert archive.report.torn_bytes == 0
    assert (body(archive, make_entry(0)), body(archive, make_entry(1))) == (b"answer 0", b"answer 1")


def damage(path: Path, number: int) -> None:
    """Flip a bit in the middle of an answer's line."""
    lines = path.read_bytes().splitlines(keepends=True)
    number = [place for place, line in enumerate(lines) if b'"kind":"answer"' in line][number]
    line = bytearray(lines[number])
    line[len(line) // 2] ^= 1
    lines[number] = bytes(line)
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("is_index_new", [False, True])
def test_a_damaged_line_is_never_served_and_hides_nothing_else(
    reopen: Any, make_entry: MakeEntry, tmp_path: Path, is_index_new: bool, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [make_entry(number) for number in range(5)]
    keep(reopen(), *entries)
    reopen().close()
    damage(tmp_path / ACTIVE_NAME, 2)
    if is_index_new:
        shutil.rmtree(tmp_path / "index")
    archive = reopen()
    assert [body(archive, entry) for entry in entries] == [b"answer 0", b"answer 1", None, b"answer 3", b"answer 4"]
    assert body(archive, entries[2]) is None
    assert caplog.text.count("a line is damaged and not used") == 1
    if is_index_new:
        [found] = archive.report.damage
        assert "checksum" in found.reason
        assert found.segment_name == ACTIVE_NAME
        assert archive.read(found.location) == (tmp_path / ACTIVE_NAME).read_bytes().splitlines(keepends=True)[3]
    keep(archive, make_entry(2, body=b"bought again"))
    assert body(archive, entries[2]) == b"bought again"
    archive = reopen()
    assert body(archive, entries[2]) == b"bought again"


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_damaged_answer_can_be_withdrawn(
    reopen: Any, make_entry: MakeEntry, tmp_path: Path, is_restarted: bool
) -> None:
    """The writer must not stumble over the very line that somebody wants to be rid of."""
    archive = reopen()
    keep(archive, make_entry(0), make_entry(1))
    if is_restarted:
        archive = reopen()
    archive.snapshot()
    damage(tmp_path / ACTIVE_NAME, 0)
    keep(archive, tombstone(make_entry(0)), make_entry(2))
    archive.snapshot()
    for archive in reopen.twice():
        assert [body(archive, make_entry(number)) for number in range(3)] == [None, b"answer 1", b"answer 2"]


def test_another_answer_at_the_place_is_not_served(reopen: Any, make_entry: MakeEntry, tmp_path: Path) -> None:
    """An index that points to a whole line of another address: somebody changed the journal."""
    keep(reopen(), make_entry(0), make_entry(1), make_entry(2))
    reopen().close()
    lines = (tmp_path / ACTIVE_NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / ACTIVE_NAME).write_bytes(lines[0] + lines[2] + lines[1] + lines[3])
    archive = reopen()
    assert [body(archive, make_entry(number)) for number in range(3)] == [None, None, b"answer 2"]
