"""The guards by themselves."""

import hmac
import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web
from multidict import CIMultiDict

from kdproxy.core.models import Upstream
from kdproxy.core.routing import BUILT_IN
from kdproxy.errors import RequestRefused
from kdproxy.web import guard as guard_module
from kdproxy.web.guard import (
    HostGuard,
    LoopGuard,
    TokenGuard,
    bearer,
    credentials,
    is_loopback,
    is_near,
    is_same_secret,
)

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


@pytest.mark.parametrize(
    ("peer", "own", "is_it"),
    [
        *(("127.0.0.1", "127.0.0.1", True), ("::1", "::1", True), ("127.0.0.1", "192.0.2.1", True)),
        *(("192.0.2.1", "192.0.2.1", True), ("192.0.2.2", "192.0.2.1", False), ("2001:db8::2", "2001:db8::1", False)),
        *(("172.17.0.1", "172.17.0.2", False), ("0.0.0.0", "127.0.0.1", False)),
    ],
)
def test_this_machine_is_distinguished_by_addresses(peer: str, own: str, is_it: bool) -> None:
    transport = SimpleNamespace(get_extra_info={"peername": (peer, 5), "sockname": (own, 8400)}.get)
    forged = headers(X_Forwarded_For="127.0.0.1", Forwarded="for=127.0.0.1", X_Real_IP="127.0.0.1")
    assert is_near(cast(web.BaseRequest, SimpleNamespace(transport=transport, headers=forged))) == is_it
    assert not is_near(cast(web.BaseRequest, SimpleNamespace(transport=None, headers=forged)))


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(given: bytes, secret: bytes) -> bool:
        compared.append((given, secret))
        return hmac.compare_digest(given, secret)

    monkeypatch.setattr(guard_module, "hmac", SimpleNamespace(compare_digest=compare))
    guard = TokenGuard(TOKEN, {})
    for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", "\udcff"):
        compared.clear()
        assert not guard.holds(headers(Authorization=f"Bearer {wrong}"), f"key={wrong.encode(errors='replace').hex()}x")
        assert all(secret == TOKEN.encode() for _, secret in compared)
        assert len(compared) == 2  # the header's and the query's
    assert is_same_secret(TOKEN, TOKEN)


def test_no_token_or_key_is_compared_elsewhere() -> None:
    web_package = Path(guard_module.__file__).parent
    code = {path.name: path.read_text(encoding="utf-8") for path in web_package.glob("*.py")}
    assert [name for name, text in code.items() if "compare_digest" in text] == ["guard.py"]
    secret = re.compile(r"\b\w*(?:token|key|secret)\b\s*[!=]=|[!=]=\s*[\w.]*\b\w*(?:token|secret)\b")
    found = [(name, line) for name, text in code.items() for line in text.splitlines() if secret.search(line)]
    assert found == []


@pytest.mark.parametrize(
    ("value", "token"),
    [("Bearer x", "x"), ("bearer  x ", "x"), ("Basic x", None), ("Bearer", ""), ("x", None), ("", None)],
)
def test_a_bearer_token_is_read(value: str, token: str | None) -> None:
    assert bearer(headers(Authorization=value)) == token
    assert bearer(headers()) is None
