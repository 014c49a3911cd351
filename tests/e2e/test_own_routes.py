"""The table of own routes: each says who may call it, and each is called with every credential there is."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from kdproxy.app import App
from kdproxy.storage.lock import read_owner
from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher
from kdproxy.web import admin
from kdproxy.web.admin import Health
from kdproxy.web.own_routes import Access, OwnRoute

pytestmark = pytest.mark.asyncio

TOKEN = "t" * 20
RUNS = "/_kdproxy/api/runs"

TABLE = {
    ("GET", "/_kdproxy"): Access.ANYONE,
    ("GET", "/_kdproxy/"): Access.ANYONE,
    ("GET", "/_kdproxy/healthz"): Access.ANYONE,
    ("POST", "/_kdproxy/api/*"): Access.OWNER,
    ("GET", RUNS): Access.OWNER,
    ("POST", f"{RUNS}/*/attempts"): Access.RUN,
    ("GET", f"{RUNS}/*/attempts/*"): Access.RUN,
    ("POST", f"{RUNS}/*/attempts/*/close"): Access.RUN,
    ("GET", f"{RUNS}/*/cursor"): Access.RUN,
    ("POST", f"{RUNS}/*/cursor"): Access.RUN,
}
"""A new route needs a row here, and whoever adds it decides who may call it."""

ADMITTED = {
    Access.ANYONE: {"none", "wrong", "proxy", "owner", "attempt", "other attempt"},
    Access.OWNER: {"owner"},
    Access.RUN: {"owner", "attempt"},
}


def path_of(route: OwnRoute) -> str:
    words: Iterator[str] = iter(("mine", "1") if route.shape.startswith(RUNS) else ("stats",))
    return "".join(next(words) if each == "*" else each for each in route.shape)


@pytest.mark.parametrize("token", [None, TOKEN], ids=["without a token", "with a token"])
async def test_each_route_admits_only_those_whom_its_row_names(
    teacher: ScriptedTeacher, http: Any, token: str | None
) -> None:
    async with run_proxy(teacher, environment={"KDPROXY_TOKEN": token} if token else {}) as proxy:
        owner = read_owner(proxy.data_dir)
        assert owner is not None

        async def call(method: str, path: str, bearer: str | None) -> tuple[int, Any]:
            headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
            headers["Content-Type"] = "application/json"
            data = b"{}" if method == "POST" else None
            async with http.request(method, proxy.address + path, data=data, headers=headers) as response:
                return response.status, await response.read()

        async def open_attempt(run: str) -> str:
            status, body = await call("POST", f"{RUNS}/{run}/attempts", owner.token)
            assert status == 200, body
            key: str = orjson.loads(body)["key"]
            return key

        routes = proxy.app.own_routes.routes
        assert {(route.method, route.shape): route.access for route in routes} == TABLE
        for route in routes:
            admitted = set()
            for name in ADMITTED[Access.ANYONE]:
                key, other = await open_attempt("mine"), await open_attempt("other")
                bearers = {"none": None, "wrong": "x" * 20, "proxy": token or TOKEN, "owner": owner.token}
                bearers |= {"attempt": key, "other attempt": other}
                path = path_of(route)
                # The first attempt of each round is the one that the path names.
                opened = proxy.app._run_api.open_attempts
                path = path.replace("/attempts/1", f"/attempts/{opened[0].attempt.token}")
                status, body = await call(route.method, path, bearers[name])
                assert status in (200, 400, 401), (route, name, body)
                if status != 401:
                    admitted.add(name)
                for each in proxy.app._run_api.open_attempts:
                    closing = f"{RUNS}/{each.ref.run}/attempts/{each.attempt.token}/close"
                    assert (await call("POST", closing, owner.token))[0] == 200
            assert admitted == ADMITTED[route.access], route
        assert teacher.count() == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
async def test_a_route_takes_its_methods_only(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, method: str
) -> None:
    owner = read_owner(proxy.data_dir)
    assert owner is not None
    for route in proxy.app.own_routes.routes:
        path = path_of(route)
        at = {each.method for each in proxy.app.own_routes.routes if each.words(path) is not None}
        headers = {"Authorization": f"Bearer {owner.token}"}
        got = await send(proxy.address + path, {} if method == "POST" else None, method=method, headers=headers)
        is_one = method in at or (method == "HEAD" and "GET" in at)
        assert (got.status == 405) != is_one, (route, got.status)
    assert teacher.count() == 0


async def test_a_row_says_who_may_call() -> None:
    async def answer(request: Any, call: Any) -> Any:
        raise AssertionError

    with pytest.raises(TypeError, match="access"):
        OwnRoute("GET", "/_kdproxy/new", answer=answer)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"]
)
async def test_a_body_that_is_not_sent_as_json_is_refused(proxy: RunningProxy, http: Any, kind: str | None) -> None:
    owner = read_owner(proxy.data_dir)
    assert owner is not None
    for path in ("/_kdproxy/api/stats", f"{RUNS}/r/attempts", f"{RUNS}/r/cursor"):
        headers = {"Authorization": f"Bearer {owner.token}"} | ({} if kind is None else {"Content-Type": kind})
        async with http.post(proxy.address + path, data=b"{}", headers=headers) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (415, "not_json")
    assert proxy.app._run_api.open_attempts == ()


async def test_json_may_have_a_charset(proxy: RunningProxy, send: Any) -> None:
    owner = read_owner(proxy.data_dir)
    assert owner is not None
    headers = {"Authorization": f"Bearer {owner.token}", "Content-Type": "Application/JSON; charset=utf-8"}
    assert (await send(f"{proxy.address}/_kdproxy/api/stats", {}, headers=headers)).status == 200


async def test_no_browser_may_call_the_api(proxy: RunningProxy, send: Any) -> None:
    owner = read_owner(proxy.data_dir)
    assert owner is not None
    token = {"Authorization": f"Bearer {owner.token}"}
    for browser in ({"Origin": proxy.address}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-origin"}):
        for route in proxy.app.own_routes.routes:
            if route.access is not Access.ANYONE:
                body = {} if route.method == "POST" else None
                got = await send(proxy.address + path_of(route), body, headers=token | browser)
                assert (got.status, orjson.loads(got.body)["error"]["code"]) == (403, "not_for_browsers"), route
    assert proxy.app._run_api.open_attempts == ()


async def test_beyond_this_machine_health_is_a_word_only(
    teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = Health(status="degraded", reason="/home/someone/data is full", hint="Free it.", unwritten_answers=3)
    monkeypatch.setattr(App, "_health", lambda self: health)
    monkeypatch.setattr(admin, "is_near", lambda request: False)
    async with run_proxy(teacher, environment={"KDPROXY_TOKEN": TOKEN}) as proxy:
        for path in ("/_kdproxy/healthz", "/_kdproxy/"):
            got = await send(proxy.address + path)
            assert (got.status, orjson.loads(got.body)) == (503, {"status": "degraded"})
            got = await send(proxy.address + path, headers={"Authorization": f"Bearer {TOKEN}"})
            assert orjson.loads(got.body)["reason"] == health.reason


async def test_no_own_reply_names_a_release_or_may_be_kept_by_a_browser(proxy: RunningProxy, send: Any) -> None:
    owner = read_owner(proxy.data_dir)
    assert owner is not None
    for route in proxy.app.own_routes.routes:
        for token in (owner.token, "wrong"):
            body = {} if route.method == "POST" else None
            got = await send(proxy.address + path_of(route), body, headers={"Authorization": f"Bearer {token}"})
            assert "aiohttp" not in str(got.headers), route
            assert "Python" not in str(got.headers), route
            if route.access is Access.ANYONE:
                assert got.headers["Cache-Control"] == "no-store"
                assert got.headers["X-Content-Type-Options"] == "nosniff"
                assert got.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    [
        *("/_kdproxy/../etc/passwd", "/_kdproxy/..%2f..%2fetc/passwd", "/_kdproxy/%2e%2e/%2e%2e/etc/passwd"),
        *("/_kdproxy/healthz/..", "/_kdproxy//etc/passwd", "/_kdproxy/healthz%00.html", "/_kdproxy/healthz;x"),
        *("/_kdproxy/static/../../secret", "/_kdproxy/api_recovery.jsonl", "/_kdproxy/HEALTHZ", "/_kdproxy/\\..\\x"),
        *(f"{RUNS}/", f"{RUNS}//attempts", f"{RUNS}/r/attempts/", f"{RUNS}/r/../s/attempts", "/_kdproxy/api/"),
    ],
)
async def test_no_file_is_served_and_no_path_is_rewritten(
    teacher: ScriptedTeacher, proxy: RunningProxy, exchange: Any, path: str
) -> None:
    for method in ("GET", "POST"):
        request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        reply = await exchange(proxy.address, request.encode())
        assert reply.split()[1] in (b"400", b"404"), reply
        assert b"root:" not in reply
    assert teacher.count() == 0
