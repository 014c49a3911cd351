"""How often a question may be sent that may have been billed each time: three, then ever more rarely."""

from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.retry_history import (
    BUDGET,
    FIRST_SPACING_SECONDS,
    LIFETIME_SECONDS,
    LONGEST_SPACING_SECONDS,
    RetryHistory,
)


def test_three_at_once_then_ten_seconds_doubling_to_ten_minutes() -> None:
    history: RetryHistory[str] = RetryHistory()
    now, waits = 0.0, []
    for _ in range(12):
        history.add_failure("q", "error", now)
        waits.append(history.wait("q", now))
        now += waits[-1]
    assert waits == [0, 0, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600]
    failures = history.of("q", now)
    assert failures is not None
    assert (failures.calls, failures.last_error) == (12, "error")


def test_a_success_clears_it_and_others_are_not_concerned() -> None:
    history: RetryHistory[str] = RetryHistory()
    for _ in range(BUDGET):
        history.add_failure("q", "error", 0.0)
    assert history.wait("q", 0.0) == FIRST_SPACING_SECONDS
    assert history.wait("other", 0.0) == 0.0
    history.clear("q")
    assert history.wait("q", 0.0) == 0.0
    assert len(history) == 0


def test_it_is_bounded_and_aged() -> None:
    history: RetryHistory[str] = RetryHistory(most=3)
    for question in ("a", "b", "c", "a", "d"):
        history.add_failure(question, "error", 0.0)
    assert [history.of(question, 0.0) is not None for question in "abcd"] == [True, False, True, True]
    assert history.of("a", LIFETIME_SECONDS + 1) is None
    assert len(history) == 2


@given(asked=st.lists(st.floats(0, 2_000), max_size=60))
def test_whoever_asks_whenever_calls_are_bounded(asked: list[float]) -> None:
    """Each ask goes out if it may, and always fails."""
    history: RetryHistory[str] = RetryHistory()
    now, sent = 0.0, []
    for pause in asked:
        now += pause
        if history.wait("q", now) == 0.0:
            sent.append(now)
            history.add_failure("q", "error", now)
    for number, (before, after) in enumerate(zip(sent[BUDGET - 1 :], sent[BUDGET:], strict=False)):
        assert after - before >= min(LONGEST_SPACING_SECONDS, FIRST_SPACING_SECONDS * 2.0**number) - 1e-6
