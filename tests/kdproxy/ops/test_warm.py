"""Warming keeps what is new, once, and says what it could not use."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kdproxy.core import record
from kdproxy.core.models import Form
from kdproxy.core.ports import Intent
from kdproxy.core.routing import Router
from kdproxy.engine.clock import SystemClock
from kdproxy.errors import KdproxyError
from kdproxy.ops import job
from kdproxy.ops.context import JobContext
from kdproxy.ops.export import ExportArguments
from kdproxy.ops.forget.choose import Wish, choose
from kdproxy.ops.forget.withdraw import WithdrawArguments
from kdproxy.ops.runs.change import runs_at_rest
from kdproxy.ops.verify import VerifyArguments
from kdproxy.ops.warm import warm as warm_module
from kdproxy.ops.warm.warm import WarmArguments
from tests.kdproxy.sample import keep_all

GOOD = {"prompt": "why?", "response": "so", "model": "gpt-4.1"}


def counts(result: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in result.items() if count and name != "is_stopped"}


def test_a_second_time_changes_nothing(shelf: Any, write: Callable[..., str]) -> None:
    file = write("rows.jsonl", GOOD, {**GOOD, "prompt": "who?"})
    assert counts(shelf.run(WarmArguments(files=(file,))).result) == {"lines": 2, "prompts": 2}
    before = shelf.journal()
    assert counts(shelf.run(WarmArguments(files=(file,)), now=1_800_000_000.0).result) == {"lines": 2, "already": 2}
    assert shelf.journal() == before


def test_the_kth_equal_row_of_a_file_is_sample_k(shelf: Any, write: Callable[..., str]) -> None:
    file = write("a.jsonl", *({**GOOD, "response": f"r{number}"} for number in range(3)), {**GOOD, "model": "other"})
    again = write("b.jsonl", {**GOOD, "response": "of b"}, *[{**GOOD, "response": "b more"}] * 3)
    assert shelf.run(WarmArguments(files=(file, again))).result["prompts"] == 5
    assert [shelf.prompt("why?", ordinal=number) for number in range(4)] == ["r0", "r1", "r2", "b more"]
    assert shelf.prompt("why?", model="other") == "so"


def test_system_text_is_part_of_the_question(shelf: Any, write: Callable[..., str]) -> None:
    shelf.run(WarmArguments(files=(write("rows", {**GOOD, "system": "be kind"}),)))
    assert shelf.prompt("why?") is None
    assert shelf.prompt("why?", system="be kind") == "so"


def test_one_broken_line_among_many_is_named_and_skipped(shelf: Any, write: Callable[..., str]) -> None:
    rows: list[Any] = [{**GOOD, "prompt": str(number)} for number in range(1_200)]
    rows[700] = b'{"prompt": "701\n'
    outcome = shelf.run(WarmArguments(files=(file := write("rows.jsonl", *rows),)))
    assert counts(outcome.result) == {"lines": 1_200, "prompts": 1_199, "bad": 1}
    (finding,) = outcome.findings
    assert (finding["file"], finding["line"]) == (file, 701)
    assert "not JSON" in finding["reason"]
    assert shelf.prompt("1199") == "so"


def test_only_the_first_twenty_bad_lines_are_named(shelf: Any, write: Callable[..., str]) -> None:
    outcome = shelf.run(WarmArguments(files=(write("rows", *[b"[]\n"] * 50, GOOD),)))
    assert (len(outcome.findings), outcome.result["bad"], outcome.result["prompts"]) == (20, 50, 1)


def test_strict_stops_at_the_first_bad_line_and_keeps_what_came_before(shelf: Any, write: Callable[..., str]) -> None:
    file = write("rows", GOOD, b"null\n", {**GOOD, "prompt": "after"}, b"null\n")
    outcome = shelf.run(WarmArguments(files=(file, file), strict=True))
    assert outcome.result["is_stopped"]
    assert (outcome.result["bad"], outcome.result["prompts"]) == (1, 1)
    assert (shelf.prompt("why?"), shelf.prompt("after")) == ("so", None)


@pytest.mark.parametrize(
    "line",
    [
        b"17\n",
        b"{}\n",
        b'{"prompt":"\xff","response":"a","model":"m"}\n',
        b'{"prompt":"\\ud800","response":"a","model":"m"}\n',
        b'{"prompt":"q","response":NaN,"model":"m"}\n',
        b"\x00\x01\x02\n",
        b'{"v":1,"kind":"prompt","key":"unsealed"}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_strange_lines_are_bad_lines(line: bytes, shelf: Any, write: Callable[..., str]) -> None:
    outcome = shelf.run(WarmArguments(files=(write("rows", line, GOOD),)))
    assert counts(outcome.result) == {"lines": 2, "prompts": 1, "bad": 1}


def test_a_bomb_and_a_cut_file_are_reported_and_the_rest_is_taken(
    shelf: Any, write: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b" " * (200 << 20)))
    rows = b"".join(b'{"prompt":"%d","response":"%d","model":"m"}\n' % (n, n * 7919) for n in range(1_000))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(rows)[:-30])
    files = (str(tmp_path / "bomb.gz"), str(tmp_path / "cut.gz"), write("good", GOOD))
    outcome = shelf.run(WarmArguments(files=files))
    assert outcome.result["bad"] == 2
    assert ["100 times" in f["reason"] or "cut off" in f["reason"] for f in outcome.findings] == [True, True]
    assert shelf.prompt("why?") == "so"
    assert shelf.prompt("0", model="m") == "0"


def test_a_missing_file_is_an_error_before_anything_is_taken(shelf: Any, write: Callable[..., str]) -> None:
    with pytest.raises(KdproxyError, match="cannot be read"):
        shelf.run(WarmArguments(files=(write("rows", GOOD), "/nowhere/at/all")))
    assert shelf.prompt("why?") is None


def test_a_run_that_is_left_midway_continues_where_it_stopped(
    shelf: Any, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_module, "BATCH_LINES", 10)
    rows = [{**GOOD, "prompt": str(number % 70), "response": str(number)} for number in range(100)]
    file = write("rows", *rows)
    context = JobContext(
        library=shelf.archive,
        router=Router([]),
        on_runs=runs_at_rest(shelf.archive.calls, SystemClock()),
        now=lambda: 1.0,
    )
    events = job.start(context, WarmArguments(files=(file,)))
    for _ in range(5):
        next(events)
    events.close()
    result = shelf.run(WarmArguments(files=(file,))).result
    assert 0 < result["already"] < 100
    assert result["prompts"] + result["already"] == 100
    assert shelf.journal().count(b"\n") == 100
    assert [shelf.prompt("5", ordinal=number) for number in range(3)] == ["5", "75", None]


# -- journals ---------------------------------------------------------------------------------------------------------


def test_journal_lines_are_copied_byte_for_byte(make_shelf: Any, write: Callable[..., str], entry: Any) -> None:
    # members in another order, and one that this release does not know: still a line of version 1
    odd = record.seal(
        b'{"kind":"prompt","v":1,"new":[1.50],"namespace":"default","key":"k","ordinal":0,"prompt_hash":"",'
        b'"model":"m","messages":[],"response":"r","created_at":1,"source":null}'
    )
    lines = [record.encode(entry("a")), odd, record.encode(entry("b", b"\x00\xff", form=Form.BINARY))]
    target = make_shelf("target")
    file = write("journal.jsonl", lines[0].replace(b"\n", b"\r\n"), lines[1], lines[2])
    assert counts(target.run(WarmArguments(files=(file,))).result) == {"lines": 3, "answers": 2, "prompts": 1}
    assert target.journal() == b"".join(lines)


def test_damaged_journal_lines_are_bad_lines(shelf: Any, write: Callable[..., str], entry: Any) -> None:
    line = record.encode(entry("a"))
    outcome = shelf.run(WarmArguments(files=(write("j", line.replace(b"yes", b"not"), line[:200] + b"\n"),)))
    assert counts(outcome.result) == {"lines": 2, "bad": 2}
    assert "checksum" in outcome.findings[0]["reason"]


def test_a_journal_gives_what_it_gave_superseded_and_withdrawn(
    make_shelf: Any, entry: Any, tombstone: Any, tmp_path: Path
) -> None:
    source = make_shelf("source")
    keep = partial(keep_all, source.archive)
    keep([entry("refreshed", b'{"v":1}'), entry("forgotten"), entry("refreshed", b"data: x", form=Form.SSE)])
    keep([entry("refreshed", b'{"v":2}')], intent=Intent.REFRESH)
    keep([tombstone("forgotten"), entry("bought again", b'{"v":1}')])
    keep([tombstone("bought again"), entry("bought again", b'{"v":2}')])
    target = make_shelf("target")
    for _ in range(2):
        target.run(WarmArguments(files=(str(source.path),)))
        assert target.answer("refreshed") == b'{"v":2}'
        assert target.answer("refreshed", Form.SSE) is None
        assert target.answer("forgotten") is None
        assert target.answer("bought again") == b'{"v":2}'
        assert target.journal() == source.journal()
    assert target.run(ExportArguments()).lines == source.run(ExportArguments()).lines
    assert target.run(VerifyArguments()).result["problems"] == 0


def test_an_answer_that_is_there_continues_answering_and_another_is_a_spare(
    shelf: Any, write: Callable[..., str], entry: Any
) -> None:
    keep_all(shelf.archive, [entry("a", b'{"mine":1}', at=10.0)])
    file = write("j", record.encode(entry("a", b'{"theirs":1}', at=20.0)))
    assert counts(shelf.run(WarmArguments(files=(file,))).result) == {"lines": 1, "answers": 1}
    assert counts(shelf.run(WarmArguments(files=(file,))).result) == {"lines": 1, "already": 1}
    assert shelf.answer("a") == b'{"mine":1}'
    assert [b"theirs" in line for line in shelf.run(ExportArguments()).lines] == [False, True]


def test_an_answer_whose_line_is_damaged_is_put_back(
    make_shelf: Any, write: Callable[..., str], entry: Any, tmp_path: Path
) -> None:
    """It answers nothing any more, so it would be paid for again, with its copy at hand."""
    first = make_shelf("data")
    keep_all(first.archive, [entry("a"), entry("b")])
    first.run(WarmArguments(files=(write("rows", GOOD),)))
    copy = write("copy", first.journal())
    first.directory.close()
    journal = tmp_path / "data" / "api_recovery.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b"yes", b"nay", 1).replace(b'"response":"so"', b'"response":"no"'))
    shelf = make_shelf("data")
    assert (shelf.answer("a"), shelf.prompt("why?")) == (None, None)
    taken = {"lines": 4, "answers": 1, "prompts": 1, "already": 2}
    assert counts(shelf.run(WarmArguments(files=(copy,))).result) == taken
    assert (shelf.answer("a"), shelf.prompt("why?")) == (shelf.answer("b"), "so")
    assert shelf.run(VerifyArguments()).result["problems"] == 2, "the two damaged lines, and sums that fit"
    assert counts(shelf.run(WarmArguments(files=(copy,))).result) == {"lines": 4, "already": 4}


def test_a_row_takes_the_place_of_a_damaged_one(make_shelf: Any, write: Callable[..., str], tmp_path: Path) -> None:
    file = write("rows", GOOD)
    shelf = make_shelf("data")
    shelf.run(WarmArguments(files=(file,)))
    shelf.directory.close()
    journal = tmp_path / "data" / "api_recovery.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"response":"so"', b'"response":"no"'))
    shelf = make_shelf("data")
    assert counts(shelf.run(WarmArguments(files=(file,))).result) == {"lines": 1, "prompts": 1}
    assert shelf.prompt("why?") == "so"


def test_a_tombstone_withdraws_what_it_names_whatever_the_clock_says(
    shelf: Any, write: Callable[..., str], entry: Any, tombstone: Any
) -> None:
    line = record.encode(entry("a", at=1e10))
    withdrawal = record.encode(replace(tombstone("a", at=1.0), withdraws=(record.read(line).name,)))
    keep_all(shelf.archive, [entry("a", b'{"another":1}', at=0.0)])
    for file in (write("one", withdrawal), write("other", line)):
        shelf.run(WarmArguments(files=(file,)))
    assert shelf.answer("a") == b'{"another":1}'
    assert counts(shelf.run(WarmArguments(files=(write("again", line, withdrawal),))).result) == {
        "lines": 2,
        "withdrawn": 1,
        "already": 1,
    }


def test_what_was_forgotten_here_does_not_come_back(
    shelf: Any, write: Callable[..., str], entry: Any, tombstone: Any
) -> None:
    old = write("old", record.encode(entry("a", at=10.0)))
    shelf.run(WarmArguments(files=(old,)))
    keep_all(shelf.archive, [tombstone("a", at=5.0)])
    new = write("new", record.encode(entry("a", b'{"bought":"later"}', at=1.0)))
    assert counts(shelf.run(WarmArguments(files=(old,))).result) == {"lines": 1, "withdrawn": 1}
    assert counts(shelf.run(WarmArguments(files=(new,))).result) == {"lines": 1, "answers": 1}


def test_a_journal_of_version_1_gives_what_it_gave(
    make_shelf: Any, write: Callable[..., str], entry: Any, tombstone: Any, as_v1: Any
) -> None:
    """Its tombstones end the lines before them in their own journal, and nothing else."""
    lines = [
        as_v1(entry("refreshed", b'{"v":1}', at=3.0)),
        as_v1(entry("refreshed", b'{"v":2}', at=1.0)),
        as_v1(entry("forgotten", b'{"v":1}')),
        as_v1(entry("forgotten", b'{"v":2}')),
        as_v1(tombstone("forgotten", at=0.0)),
        as_v1(entry("bought again", b'{"v":1}')),
        as_v1(tombstone("bought again", at=1e10)),
        as_v1(entry("bought again", b'{"v":2}')),
        as_v1(entry("mine", b'{"v":1}')),
        as_v1(tombstone("mine", at=1e10)),
    ]
    target = make_shelf("target")
    keep_all(target.archive, [entry("mine", b'{"mine":1}', at=0.0)])
    journals = []
    for _ in range(3):
        target.run(WarmArguments(files=(write("v1", *lines),)))
        journals.append(target.journal())
        assert target.answer("refreshed") == b'{"v":2}'
        assert target.answer("forgotten") is None
        assert target.answer("bought again") == b'{"v":2}'
        assert target.answer("mine") == b'{"mine":1}'
    assert journals[0] == journals[1] == journals[2]
    assert all(line in journals[0] for line in lines[:4])
    assert target.run(VerifyArguments()).result["problems"] == 0


def test_a_row_that_was_forgotten_does_not_come_back(shelf: Any, write: Callable[..., str]) -> None:
    rows = write("rows", GOOD)
    shelf.run(WarmArguments(files=(rows,)))
    (chosen,) = choose(shelf.run(ExportArguments()).lines, Wish(match="so"))
    assert shelf.run(WithdrawArguments(samples=(chosen.sample,), reason="bad")).result["withdrawn"] == 1
    assert counts(shelf.run(WarmArguments(files=(rows,))).result) == {"lines": 1, "withdrawn": 1}
    other = write("other", {**GOOD, "response": "another"})
    assert counts(shelf.run(WarmArguments(files=(other,))).result) == {"lines": 1, "prompts": 1}


def test_a_directory_stands_for_its_segments_in_order(make_shelf: Any, entry: Any, as_v1: Any, tmp_path: Path) -> None:
    """Lines of version 1: of one form the last counts."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "api_recovery.000002.jsonl").write_bytes(as_v1(entry("a", b"2")))
    (folder / "api_recovery.000010.jsonl").write_bytes(as_v1(entry("a", b"10")))
    (folder / "api_recovery.jsonl").write_bytes(as_v1(entry("a", b"11")))
    target = make_shelf("target")
    target.run(WarmArguments(files=(str(folder),)))
    assert target.answer("a") == b"11"
    (tmp_path / "empty").mkdir()
    with pytest.raises(KdproxyError, match="without a journal"):
        target.run(WarmArguments(files=(str(tmp_path / "empty"),)))
