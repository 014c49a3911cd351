"""The `Cache-Status` reply header (RFC 9211): what the proxy did with a request. Grammar: docs/modes.md."""

import re
from collections.abc import Sequence
from enum import StrEnum

HEADER = "Cache-Status"

# A token or a string (RFC 8941 sections 3.3.3 and 3.3.4): the characters that a parameter may hold unescaped.
_ITEM = re.compile(r"""[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*|"(?:[ !#-\[\]-~]|\\["\\])*\"""")
_DETAIL_CHARACTERS = 120
_NOT_IN_STRING = re.compile(r"[^ -~]")


class Forward(StrEnum):
    """Why a request went to the upstream (RFC 9211 section 2.2)."""

    MISS = "miss"
    """No stored answer matches."""
    BYPASS = "bypass"
    """The endpoint, the body or the mode makes the request uncacheable."""
    METHOD = "method"
    """A GET, or another method that is not cacheable."""
    REQUEST = "request"
    """An answer is stored, but the client asked for a new one."""


def hit(key: str, *, detail: str | None = None, ignored: Sequence[str] = ()) -> str:
    """An answer from the store; `ignored`: the positions in the request that were not compared."""
    return f'kdproxy; hit; key="{key}"{_detail(detail)}{_ignored(ignored)}'


def forwarded(
    forward: Forward,
    *,
    status: int | None = None,
    is_stored: bool = False,
    is_collapsed: bool = False,
    key: str | None = None,
    detail: str | None = None,
    ignored: Sequence[str] = (),
) -> str:
    """An answer from the upstream; `is_collapsed`: this client joined a call already under way."""
    field = f"kdproxy; fwd={forward}"
    if status is not None:
        field += f"; fwd-status={status}"
    if is_stored:
        field += "; stored"
    if is_collapsed:
        field += "; collapsed"
    if key is not None:
        field += f'; key="{key}"'
    if detail:
        field += _detail(detail)
    return field + _ignored(ignored) if ignored else field


def refused(detail: str) -> str:
    """An answer by the proxy itself, without a call to the upstream."""
    return f"kdproxy{_detail(detail)}"


def _ignored(positions: Sequence[str]) -> str:
    return f"; ignored={_string(', '.join(positions))}" if positions else ""


def _string(text: str) -> str:
    """Some reasons quote the request, so characters that could end the header or the string are replaced."""
    plain = _NOT_IN_STRING.sub("?", text[:_DETAIL_CHARACTERS]).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


def _detail(detail: str | None) -> str:
    if not detail:
        return ""
    if len(detail) <= _DETAIL_CHARACTERS and _ITEM.fullmatch(detail):
        return f"; detail={detail}"
    return f"; detail={_string(detail)}"
