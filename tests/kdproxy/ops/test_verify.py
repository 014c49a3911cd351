"""The journal is checked line by line and the index both ways; a repair makes the index fit."""

from collections.abc import Callable
from typing import Any

import pytest

from kdproxy.core import record
from kdproxy.core.models import Form, LineName
from kdproxy.core.ports import Intent, Location, Repair
from kdproxy.core.routing import Router
from kdproxy.engine.clock import SystemClock
from kdproxy.ops import job
from kdproxy.ops.context import JobContext
from kdproxy.ops.event import Progress, Result
from kdproxy.ops.runs.change import runs_at_rest
from kdproxy.ops.verify import VerifyArguments
from kdproxy.storage import names
from kdproxy.storage.sample_row import Generation, Recording, pack
from tests.kdproxy.sample import keep_all

CHECK = VerifyArguments()
REPAIR = VerifyArguments(repair=True)


@pytest.fixture
def full(shelf: Any, entry: Any, tombstone: Any) -> Any:
    """A data directory with a bit of everything."""
    prompt = record.decode(
        record.seal(
            b'{"v":1,"kind":"prompt","namespace":"default","key":"k","ordinal":0,"prompt_hash":"",'
            b'"model":"m","messages":[],"response":"r","created_at":1,"source":null}'
        )
    )
    keep_all(shelf.archive, [entry("a"), entry("b"), entry("c", response_id="resp_1"), prompt])
    keep_all(shelf.archive, [entry("a", b'{"second":true}')], intent=Intent.REFRESH)
    keep_all(shelf.archive, [tombstone("b"), tombstone("never there")])
    return shelf


def plant(shelf: Any, rows: dict[str, tuple[bytes | None, bytes | None]], **sums: Any) -> None:
    """Change rows of the index behind the journal's back."""
    shelf.archive.repair(Repair(rows=rows, answers=sums.get("answers", {}), prompts=sums.get("prompts", 0)))


def single(location: Location) -> bytes:
    return pack([Generation(LineName("ab" * 12, 1), (Recording(Form.JSON, location),))])


def row(shelf: Any, name: str) -> bytes | None:
    (value,) = shelf.archive.look_up([name])
    return value


def test_a_sound_directory_has_no_problems(full: Any) -> None:
    outcome = full.run(CHECK)
    assert (outcome.result["lines"], outcome.result["problems"], outcome.findings) == (7, 0, [])
    assert not full.run(REPAIR).result["is_repaired"]


def test_rows_that_are_missing_are_found_and_put_back(full: Any, entry: Any) -> None:
    name = names.sample_name(entry("c").address)
    response = names.response_name("default", "resp_1")
    plant(full, {name: (row(full, name), None), response: (b"1", None)})
    assert full.answer("c") is None
    outcome = full.run(CHECK)
    assert (outcome.result["problems"], outcome.result["missing"]) == (2, 2)
    assert {finding["row"] for finding in outcome.findings} == {name, response}
    assert full.answer("c") is None
    assert full.run(REPAIR).result["is_repaired"]
    assert full.answer("c") is not None
    assert full.archive.knows_response("default", "resp_1")
    assert full.run(CHECK).result["problems"] == 0


def test_rows_that_lead_nowhere_or_elsewhere_are_found_and_repaired(full: Any, entry: Any) -> None:
    first, withdrawn, other = (names.sample_name(entry(name).address) for name in ("a", "b", "c"))
    lines = list(full.archive.lines())
    plant(
        full,
        {
            first: (row(full, first), single(lines[1].location)),
            withdrawn: (b"", single(lines[2].location)),
        },
    )
    assert full.answer("b") is not None
    outcome = full.run(CHECK)
    assert (outcome.result["misplaced"], outcome.result["dangling"]) == (2, 0)
    found = {finding["row"]: finding for finding in outcome.findings}
    assert (found[first]["offset"], found[first]["right_offset"]) == (
        lines[1].location.offset,
        lines[5].location.offset,
    )
    assert (found[withdrawn]["offset"], "right_offset" in found[withdrawn]) == (lines[2].location.offset, False)
    full.run(REPAIR)
    assert full.answer("a") == b'{"second":true}'
    assert full.answer("b") is None
    assert row(full, other) is not None
    assert full.run(CHECK).result["problems"] == 0


def test_wrong_sums_are_found_and_repaired(full: Any) -> None:
    plant(full, {}, answers={"openai": 3, "ghost": 1}, prompts=-1)
    outcome = full.run(REPAIR)
    assert (outcome.result["problems"], outcome.result["sums"]) == (1, 1)
    snapshot = full.archive.snapshot()
    assert ({name: count for name, count in snapshot.answers.items() if count}, snapshot.prompts) == ({"openai": 2}, 1)


def test_a_damaged_line_is_named_by_segment_line_and_byte(full: Any, make_shelf: Callable[[str], Any]) -> None:
    offset = list(full.archive.lines())[3].location.offset
    journal = full.path / "api_recovery.jsonl"
    text = bytearray(journal.read_bytes())
    text[offset + 300] ^= 1
    journal.write_bytes(text)
    outcome = full.run(CHECK)
    damaged, dangling, sums = outcome.findings
    assert (damaged["kind"], damaged["segment"], damaged["line"]) == ("damaged", "api_recovery.jsonl", 4)
    assert damaged["offset"] == offset
    assert "checksum" in damaged["reason"]
    assert (dangling["kind"], sums["kind"]) == ("dangling", "sums")
    full.run(REPAIR)
    assert full.answer("c") is None
    assert full.answer("a") is not None
    assert [finding["kind"] for finding in full.run(CHECK).findings] == ["damaged"]
    # what a fresh index reads from the journal is the same
    full.directory.close()
    for file in (full.path / "index").iterdir():
        file.unlink()
    again = make_shelf("data")
    assert [finding["kind"] for finding in again.run(CHECK).findings] == ["damaged"]


def test_the_older_line_comes_back_where_the_newer_is_damaged(full: Any) -> None:
    location = list(full.archive.lines())[5].location
    journal = full.path / "api_recovery.jsonl"
    text = bytearray(journal.read_bytes())
    text[location.offset + 300] ^= 1
    journal.write_bytes(text)
    assert full.run(REPAIR).result["misplaced"] == 1
    assert b"yes" in (full.answer("a") or b"")


def test_what_is_written_meanwhile_is_no_problem(full: Any, entry: Any, tombstone: Any) -> None:
    context = JobContext(
        library=full.archive,
        router=Router([]),
        on_runs=runs_at_rest(full.archive.calls, SystemClock()),
        now=lambda: 1.0,
    )
    events = job.start(context, REPAIR)
    assert isinstance(next(events), Progress)
    keep_all(full.archive, [entry("a", b"3"), entry("new")], intent=Intent.REFRESH)
    keep_all(full.archive, [tombstone("c")])
    *_, last = events
    assert isinstance(last, Result)
    assert last.members["problems"] == 0
    assert full.answer("a") == b"3"
    assert full.run(CHECK).result["problems"] == 0
