"""Torn and damaged lines of the events log: skipped, counted once, and logged at the start."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kdproxy.storage.test_event_log import MakeEntry, ended, open_in, sent, some_calls, sums

TAILS = st.one_of(
    st.integers(1, 9_000).map(lambda count: b"\0" * count),
    st.integers(1, 200).map(
        lambda count: b'{"v":2,"kind":"sent","origin":"0123456789abcdef01234567","seq":1,"key":"0'[:count]
    ),
    st.binary(min_size=1, max_size=50).filter(lambda tail: not tail.endswith(b"\n")),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tails=st.lists(TAILS, min_size=1, max_size=3), loses_index=st.booleans())
def test_a_torn_tail_is_ended_skipped_and_counted(
    tmp_path_factory: pytest.TempPathFactory, make_entry: MakeEntry, tails: list[bytes], loses_index: bool
) -> None:
    directory = tmp_path_factory.mktemp("torn")
    archive = open_in(directory)
    expected = some_calls(archive, make_entry)
    archive.close()
    for number, tail in enumerate(tails, 1):
        with (directory / "events.jsonl").open("ab") as file:
            file.write(tail)
        if loses_index:
            shutil.rmtree(directory / "index")
        archive = open_in(directory)
        assert {**sums(archive), "unreadable": 0} == expected
        count = sums(archive)["unreadable"]
        assert count >= number
        archive.snapshot()  # writes the index
        archive.close()
        archive = open_in(directory)
        assert sums(archive)["unreadable"] == count  # the same line at each start counts once
        archive.calls.ended(ended(archive.calls.sent(sent(7))))
        archive.close()
        expected["sent"] += 1
        expected["ended"] = {"maybe_billed": 1, "refused": 1 + number}
    archive = open_in(directory)
    assert {**sums(archive), "unreadable": 0} == expected
    archive.close()


@pytest.mark.parametrize("where", ["tail", "middle", "filled"])
def test_a_start_says_that_a_line_of_the_log_is_torn(
    tmp_path: Path, make_entry: MakeEntry, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    archive = open_in(tmp_path)
    some_calls(archive, make_entry)
    archive.close()
    log = tmp_path / "events.jsonl"
    *before, last = log.read_bytes().splitlines(keepends=True)
    torn = {"tail": last[:60], "middle": last[:60] + b"\n" + last, "filled": b"\0" * 60 + b"\n" + last}[where]
    log.write_bytes(b"".join(before) + torn)
    archive = open_in(tmp_path)
    archive.close()
    said = [each for each in caplog.records if "the events log has damaged or torn lines" in each.getMessage()]
    assert [each.__dict__["lines"] for each in said] == [1]
