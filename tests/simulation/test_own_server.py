"""Jobs against one's own server in virtual time, through our lanes and past them. The goals are the benchmark's."""

from typing import Any

import pytest

from kdproxy.core.server_kind import Recognition, ServerKind
from kdproxy.testing.own_job import OWN, direct, through_us
from kdproxy.testing.own_server import CHAT, REASONING, Batching, Slots, lengths


@pytest.mark.parametrize(("callers", "count"), [(64, 1_000), (256, 2_000), (1_000, 4_000)])
@pytest.mark.parametrize("spread", [CHAT, REASONING], ids=["chat", "reasoning"])
def test_a_batching_server_is_used_as_if_nobody_stood_between(callers: int, count: int, spread: dict[str, Any]) -> None:
    """Nobody has told us what server it is: the width comes by time alone."""
    tokens = lengths(count, **spread)
    alone = direct(lambda: Batching().serve, callers, tokens)
    seconds, server = through_us(lambda: Batching().serve, callers, tokens)
    assert seconds <= 1.03 * alone
    assert server.most_in_flight == callers
    assert server.full_at <= 3.0


@pytest.mark.parametrize(("seconds_each", "deadline", "rounds"), [(10.0, 600.0, 2), (300.0, 3_600.0, 2)])
def test_long_answers_are_all_asked_for_at_once(seconds_each: float, deadline: float, rounds: int) -> None:
    tokens = [1] * (256 * rounds)
    alone = direct(lambda: Slots(256, seconds_each).serve, 256, tokens)
    seconds, server = through_us(
        lambda: Slots(256, seconds_each).serve,
        256,
        tokens,
        deadline_seconds=deadline,
        found=Recognition(ServerKind.VLLM),
    )
    assert seconds <= 1.03 * alone
    assert server.full_at == 0.0
    blind, server = through_us(lambda: Slots(256, seconds_each).serve, 256, tokens, deadline_seconds=deadline)
    # An unknown server costs the time in which the bound widens, once.
    assert blind <= 1.03 * alone
    assert server.full_at <= 0.6


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("deadline", [60.0, 600.0])
@pytest.mark.parametrize("known", ["slots", "free"])
def test_a_small_server_answers_all_in_time(slots: int, deadline: float, known: str) -> None:
    tokens = [1] * 600
    alone = direct(lambda: Slots(slots, 2.0).serve, 256, tokens)
    upstream, found = OWN, None
    if known == "slots":
        found = Recognition(ServerKind.LLAMA_CPP, slots)
    else:
        upstream = OWN._replace(billed=False)
    seconds, server = through_us(
        lambda: Slots(slots, 2.0).serve, 256, tokens, deadline_seconds=deadline, upstream=upstream, found=found
    )
    assert server.timeouts == 0
    assert seconds <= 1.05 * alone
    if known == "slots":
        assert server.most_in_flight == 2 * slots
        assert server.sent == 600
