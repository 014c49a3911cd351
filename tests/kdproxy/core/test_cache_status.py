"""Cache-Status: what is written parses as RFC 9211 says, and says what happened."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.cache_status import Forward, forwarded, hit, refused

KEY = "0123456789abcdef" * 4

# docs/modes.md has this as ABNF.
TOKEN = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"
STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
PARAMETER = re.compile(rf"; ([a-z*][a-z0-9_.*-]*)(?:=({TOKEN}|{STRING}|-?[0-9]{{1,15}}))?")


def parsed(value: str) -> dict[str, str | bool]:
    """Read one list member with parameters (RFC 8941 section 4.2), strictly."""
    name, end = "kdproxy", len("kdproxy")
    assert value.startswith(name)
    parameters: dict[str, str | bool] = {}
    while end < len(value):
        match = PARAMETER.match(value, end)
        assert match is not None, value[end:]
        parameters[match[1]] = match[2] if match[2] is not None else True
        end = match.end()
    return parameters


def test_a_hit_names_its_key() -> None:
    assert parsed(hit(KEY)) == {"hit": True, "key": f'"{KEY}"'}
    assert parsed(hit(KEY, detail="collapsed")) == {"hit": True, "key": f'"{KEY}"', "detail": "collapsed"}


@pytest.mark.parametrize("forward", Forward)
@pytest.mark.parametrize("status", [None, 200, 529])
@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("is_collapsed", [False, True])
@pytest.mark.parametrize("key", [None, KEY])
def test_a_forwarded_request_says_why_and_what_came_of_it(
    forward: Forward, status: int | None, is_stored: bool, is_collapsed: bool, key: str | None
) -> None:
    found = parsed(forwarded(forward, status=status, is_stored=is_stored, is_collapsed=is_collapsed, key=key))
    assert found.get("fwd") == forward
    assert found.get("fwd-status") == (None if status is None else str(status))
    assert (found.get("stored", False), found.get("collapsed", False)) == (is_stored, is_collapsed)
    assert found.get("key") == (None if key is None else f'"{key}"')
    assert "hit" not in found


def test_an_answer_of_the_proxy_itself_is_neither_hit_nor_forwarded() -> None:
    assert parsed(refused("still-waiting")) == {"detail": "still-waiting"}


@given(st.text())
def test_any_detail_is_one_well_formed_parameter(detail: str) -> None:
    for value in (hit(KEY, detail=detail), forwarded(Forward.MISS, detail=detail), refused(detail)):
        assert ("detail" in parsed(value)) == bool(detail)
        assert value.isascii()


def test_a_detail_that_is_no_token_is_quoted() -> None:
    assert refused('hosted tool "x\\"\r\n é') == 'kdproxy; detail="hosted tool \\"x\\\\\\"?? ?"'


def test_a_detail_cannot_make_a_header_of_any_length() -> None:
    assert len(refused("x" * 10_000)) < 200
    assert len(refused('"' * 10_000)) < 400
