"""The guards by themselves."""

import pytest
from multidict import CIMultiDict

from kdproxy.core.models import Upstream
from kdproxy.core.routing import BUILT_IN
from kdproxy.errors import RequestRefused
from kdproxy.web.guard import HostGuard, LoopGuard, TokenGuard, credentials, is_loopback

TOKEN = "the-proxy-token-0123"


def headers(**values: str) -> CIMultiDict[str]:
    return CIMultiDict({name.replace("_", "-"): value for name, value in values.items()})


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        *(("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example", False), ("", False)),
    ],
)
def test_loopback_is_distinguished(host: str, is_local: bool) -> None:
    assert is_loopback(host) == is_local


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8400", "LocalHost", "[::1]:1", "proxy.lan", "PROXY.lan:80", "[fe80::1]:80"]
)
def test_own_names_pass(host: str) -> None:
    guard = HostGuard(frozenset({"proxy.lan", "fe80::1"}))
    guard.check(host)
    guard.check(host)


@pytest.mark.parametrize(
    "host",
    [None, "", "evil", "proxy.lan.evil", "evil@proxy.lan", "proxy.lan:", "proxy.lan:x", "proxy.lan:999999", "a b"],
)
def test_foreign_names_do_not(host: str | None) -> None:
    guard = HostGuard(frozenset({"proxy.lan"}))
    for _ in range(2):
        with pytest.raises(RequestRefused) as caught:
            guard.check(host)
        assert caught.value.http_status == 421


def test_remembered_names_do_not_grow_without_end() -> None:
    guard = HostGuard(frozenset())
    for port in range(3_000):
        guard.check(f"localhost:{port}")
    assert len(guard._seen) <= 1_000


def test_without_a_token_all_pass_unchanged() -> None:
    guard = TokenGuard(None, {"up": "secret"})
    guard.check(headers(), "")
    pairs = (("Authorization", "Bearer mine"), ("X", "y"))
    assert guard.forwarded(pairs, "up") == pairs
    assert guard.forwarded_query("key=mine&a=b", "up") == "key=mine&a=b"


@pytest.mark.parametrize(
    ("found", "query"),
    [
        (headers(Authorization=f"Bearer {TOKEN}"), ""),
        (headers(Authorization=f"BEARER {TOKEN}"), ""),
        (headers(Authorization=TOKEN), ""),
        (headers(x_api_key=TOKEN), ""),
        (headers(api_key="wrong", x_goog_api_key=TOKEN), ""),
        (headers(), f"a=b&key={TOKEN}"),
        (headers(), f"k%65y={TOKEN}"),
    ],
)
def test_the_token_opens(found: CIMultiDict[str], query: str) -> None:
    guard = TokenGuard(TOKEN, {"up": "s p&cial"})
    guard.check(found, query)
    forwarded = guard.forwarded(tuple(found.items()), "up")
    out = guard.forwarded_query(query, "up")
    assert TOKEN not in repr(forwarded) + out
    assert len(forwarded) == len(found)
    assert ("s p&cial" in repr(forwarded)) == bool(found)
    assert ("s%20p%26cial" in out) == bool(query)
    assert TOKEN not in repr(guard.forwarded(tuple(found.items()), "none")) + guard.forwarded_query(query, "none")


@pytest.mark.parametrize(
    "found",
    [
        *(headers(), headers(Authorization=""), headers(Authorization="Bearer"), headers(Authorization="Basic x")),
        *(
            headers(Authorization=f"Bearer {TOKEN} "),
            headers(Authorization=f"Bearer {TOKEN[:-1]}"),
            headers(Other=TOKEN),
        ),
        *(headers(Authorization="Bearer \udcff"), headers(x_api_key="naïve")),
    ],
)
def test_anything_else_does_not(found: CIMultiDict[str]) -> None:
    with pytest.raises(RequestRefused) as caught:
        TokenGuard(TOKEN, {}).check(found, "")
    assert caught.value.http_status == 401
    assert TOKEN not in str(caught.value)


def test_a_fingerprint_distinguishes_credentials_and_reveals_nothing() -> None:
    guard = TokenGuard(None, {})
    one = guard.fingerprint(headers(Authorization="Bearer one"), "")
    assert one == guard.fingerprint(headers(authorization="bearer one", X="y"), "a=b")
    assert one != guard.fingerprint(headers(Authorization="Bearer two"), "")
    assert one != guard.fingerprint(headers(), "")
    assert one != TokenGuard(None, {}).fingerprint(headers(Authorization="Bearer one"), "")
    assert "one" not in one


def test_all_credentials_are_found() -> None:
    found = headers(Authorization="Bearer a", x_api_key="b", api_key="c", x_goog_api_key="d", Cookie="no")
    assert sorted(credentials(found, "key=e&api_key=f&other=g&%61pi-key=h")) == list("abcdefh")


def test_the_way_is_marked_but_not_at_the_providers_own_hosts() -> None:
    other = Upstream(name="t", url="http://teacher/v1")
    guard = LoopGuard((*BUILT_IN, other))
    assert [guard.marks(upstream.name) for upstream in BUILT_IN] == [(), (), ()]
    ((name, value),) = guard.marks("t")
    guard.check(headers(CDN_Loop="kdproxy-0123456789abcdef, other-cdn"))
    with pytest.raises(RequestRefused) as caught:
        guard.check(CIMultiDict([("cdn-loop", "other-cdn"), (name, f"x, {value}")]))
    assert caught.value.http_status == 508
