"""What `stats`, `verify` and `warm` say of the events log; none changes a byte of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdproxy.core.call_event import Ended, Sent, encode_event
from kdproxy.core.models import LineName

Run = Callable[..., Any]
ORIGIN = "0123456789abcdef01234567"


def sent(number: int) -> bytes:
    return encode_event(Sent(upstream="t", sent_at=1790000000.0 + number, model="m"), LineName(ORIGIN, number))


def ended(call: int, outcome: str, billed: str) -> bytes:
    end = Ended(call=LineName(ORIGIN, call), outcome=outcome, billed=billed, ended_at=1790000009.0, seconds=1.0)
    return encode_event(end, LineName(ORIGIN, 100 + call))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory that a killed process left: three calls in flight, one refused, one cut, and half a line."""
    data = tmp_path / "kdproxy-data"
    data.mkdir()
    (data / "api_recovery.jsonl").touch()
    log = b"".join(map(sent, range(1, 6))) + ended(1, "refused", "no") + ended(2, "maybe_billed", "maybe")
    (data / "events.jsonl").write_bytes(log + sent(6)[:40])
    return data


def test_stats_counts_calls_and_lists_those_in_flight_at_a_kill(say: Run, data: Path) -> None:
    before = (data / "events.jsonl").read_bytes()
    calls = say("stats", "--json").json["calls"]
    assert (calls["sent"], calls["ended"], calls["maybe_billed"]) == (5, {"maybe_billed": 1, "refused": 1}, 4)
    assert (calls["in_flight"], calls["in_flight_at_kill"], calls["unreadable"]) == (0, 3, 1)
    out = say("stats").out.decode()
    assert "3 calls were in flight when the process was killed and may have been billed." in out
    assert f"(call {ORIGIN}/5)" in out
    assert (data / "events.jsonl").read_bytes() == before


def test_verify_lists_them_and_a_torn_line_is_no_problem(say: Run, data: Path) -> None:
    ran = say("verify")
    assert ran.code == 0
    assert "3 calls were in flight when the process was killed and may have been billed." in ran.err
    assert say("verify", "--json").json["events"] == 8


@pytest.mark.parametrize("place", [200, 500])
def test_verify_names_a_damaged_line(say: Run, data: Path, place: int) -> None:
    damaged = bytearray((data / "events.jsonl").read_bytes())
    damaged[place] ^= 1
    (data / "events.jsonl").write_bytes(damaged)
    ran = say("verify")
    assert ran.code == 1
    assert b"events.jsonl, byte" in ran.out
    assert say("verify", "--json").json["event"] == 1


def test_warm_takes_no_line_of_an_events_log_for_an_answer(say: Run, data: Path, tmp_path: Path) -> None:
    ran = say("warm", data / "events.jsonl", "--data-dir", tmp_path / "other", "--json")
    assert (ran.json["bad"], ran.json["answers"]) == (8, 0)
    assert b"events log, which holds no answer" in ran.out
