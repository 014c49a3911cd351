"""What serve says at its end of lanes that are stopped."""

from typing import Any

import pytest

from kdproxy.cli.exit_hint import ASK_AGAIN, exit_hints

NOW = 1_795_602_400.0  # 2026-11-25 10:26:40 UTC


def lane(**stopped: Any) -> dict[str, Any]:
    stop = {"reason": "insufficient_quota", "policy": "park", "for_seconds": 11_520.0, "back_seconds": None, **stopped}
    return {"upstream": "teacher", "model": "m", "credential": "0123456789ab", "queued": 1_200, "stopped": stop}


def test_a_lane_that_continues_is_not_mentioned() -> None:
    assert not list(exit_hints([{**lane(), "stopped": None}], now=NOW))


def test_which_why_how_long_and_what_to_do() -> None:
    first, second, last = exit_hints([lane()], now=NOW)
    assert first == ("teacher, model m, key 012345: parked for 3 h 12 min (insufficient_quota), 1,200 requests waited.")
    assert "account" in second
    assert last == ASK_AGAIN


def test_until_when_where_the_provider_says_so() -> None:
    _, second, _ = exit_hints([lane(back_seconds=7_200.0)], now=NOW)
    assert "2026-11-25 12:26 UTC" in second


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89.0, "89 s"), (150.0, "2 min"), (7_100.0, "118 min"), (7_260.0, "2 h 1 min")]
)
def test_durations_are_short(seconds: float, words: str) -> None:
    assert f"parked for {words} (" in next(exit_hints([lane(for_seconds=seconds)], now=NOW))


def test_a_closed_lane_is_called_so_and_each_has_its_lines() -> None:
    lines = list(exit_hints([lane(policy="fail"), lane()], now=NOW))
    assert ": closed for" in lines[0]
    assert len(lines) == 5
