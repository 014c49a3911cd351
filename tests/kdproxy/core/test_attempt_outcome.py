"""What a failed attempt means for money: the whole table of statuses, and what ends the attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core import retry
from kdproxy.core.attempt_outcome import Bound, FailureClass, bound_of, class_of_status, is_retried
from kdproxy.core.retry import Again, GiveUp
from kdproxy.providers.rules import TABLES

PAGE = b"<!DOCTYPE html>\n<html><head><title>x</title></head></html>"
REFUSED, BILLED = FailureClass.REFUSED, FailureClass.MAYBE_BILLED


@pytest.mark.parametrize("name", ["general", "openai", "anthropic", "gemini"])
@pytest.mark.parametrize(
    ("statuses", "failure", "is_overload"),
    [
        ((503, 529, 408, 409, 425, 498), REFUSED, True),
        # Cloudflare could not connect to the origin.
        ((521, 522, 523, 525, 526, 530), REFUSED, True),
        ((500, 507, 509, 540, 561, 590), REFUSED, False),
        # A gateway passed it on, and got no answer.
        ((502, 504, 520, 524, 527, 598, 599, 499), BILLED, False),
    ],
)
def test_transient_statuses(name: str, statuses: tuple[int, ...], failure: FailureClass, is_overload: bool) -> None:
    for status in statuses:
        verdict = retry.judge(status, {}, b"", TABLES[name], now=0.0)
        assert isinstance(verdict, Again), status
        assert (verdict.failure, verdict.is_rate_limit, verdict.is_page) == (failure, False, False), status
        assert verdict.is_overload or not is_overload, status


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 414, 415, 422, 451, 501, 505, 508, 511])
def test_final_statuses(status: int) -> None:
    body = b'{"error":{"message":"no"}}'
    assert isinstance(retry.judge(status, {}, body, TABLES["general"], now=0.0), GiveUp)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 451, 501])
@pytest.mark.parametrize("start", [b"", b"\n  ", b"\xef\xbb\xbf"])
def test_a_page_is_no_answer_of_a_model_server(status: int, start: bytes) -> None:
    verdict = retry.judge(status, {}, start + PAGE, TABLES["general"], now=0.0)
    assert isinstance(verdict, Again)
    assert verdict.is_page
    assert _bound(verdict, is_billed=True) is Bound.FEW


@pytest.mark.parametrize(("status", "failure"), [(500, REFUSED), (502, BILLED), (503, REFUSED), (524, BILLED)])
def test_a_page_under_a_transient_status_is_judged_by_it(status: int, failure: FailureClass) -> None:
    verdict = retry.judge(status, {}, PAGE, TABLES["general"], now=0.0)
    assert isinstance(verdict, Again)
    assert (verdict.failure, verdict.is_page) == (failure, False)


def test_the_provider_has_the_last_word() -> None:
    assert isinstance(retry.judge(520, {"x-should-retry": "false"}, b"", TABLES["general"], now=0.0), GiveUp)
    assert isinstance(retry.judge(400, {"x-should-retry": "true"}, b"", TABLES["general"], now=0.0), Again)


@pytest.mark.parametrize(
    ("failure", "more", "expected"),
    [
        (FailureClass.UNSENT, {}, Bound.TIME),
        (REFUSED, {"is_overload": True}, Bound.TIME),
        (REFUSED, {}, Bound.COUNT_WHILE_OTHERS_SUCCEED),
        (REFUSED, {"is_page": True}, Bound.FEW),
        (BILLED, {}, Bound.BUDGET),
        (BILLED, {"is_billed": False}, Bound.COUNT_WHILE_OTHERS_SUCCEED),
        (FailureClass.UNSENT, {"is_billed": False}, Bound.TIME),
    ],
)
def test_what_ends_the_attempts(failure: FailureClass, more: dict[str, bool], expected: Bound) -> None:
    assert bound_of(failure, **{"is_overload": False, "is_page": False, "is_billed": True, **more}) is expected


@given(status=st.integers(200, 599))
def test_what_may_be_billed_is_never_bounded_by_time_alone(status: int) -> None:
    if class_of_status(status) is BILLED:
        assert bound_of(BILLED, is_overload=False, is_page=False, is_billed=True) is Bound.BUDGET
    if status >= 500 and is_retried(status):
        assert isinstance(retry.judge(status, {}, b"", TABLES["general"], now=0.0), Again)


def _bound(verdict: Again, *, is_billed: bool) -> Bound:
    return bound_of(verdict.failure, is_overload=verdict.is_overload, is_page=verdict.is_page, is_billed=is_billed)
