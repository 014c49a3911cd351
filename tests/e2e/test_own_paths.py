"""What the proxy answers for itself: its page for a browser, its health, and nothing of its own for an upstream."""

import base64
import hashlib
import re
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
TOKEN = "t" * 20


@pytest.mark.parametrize("path", ["/", "/_kdproxy/", "/_kdproxy", "/?x=1"])
@pytest.mark.parametrize("token", [None, TOKEN])
async def test_a_browser_is_shown_what_this_is_and_nothing_else(
    teacher: ScriptedTeacher, send: Any, path: str, token: str | None
) -> None:
    async with run_proxy(
        [f"secret-name={teacher.base_url}"], environment={"KDPROXY_TOKEN": token} if token else {}
    ) as proxy:
        got = await send(proxy.address + path, headers=BROWSER)
        text = got.body.decode()
        assert (got.status, got.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        for words in (
            "local caching proxy",
            "The proxy works",
            "docs/README.md",
            f"OPENAI_BASE_URL={proxy.address}/v1",
        ):
            assert words in text, words
        # Whoever reaches the port may read it: no upstream, no path of this machine, no release.
        for words in ("secret-name", teacher.base_url, str(proxy.data_dir), "0.1.0", TOKEN):
            assert words not in text, words
    assert teacher.count() == 0


async def test_the_page_asks_for_nothing_and_runs_nothing(proxy: RunningProxy, send: Any) -> None:
    got = await send(f"{proxy.address}/", headers=BROWSER)
    text = got.body.decode()
    policy = got.headers["Content-Security-Policy"]
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script" not in text
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,"]  # else a browser would ask for /favicon.ico
    assert got.headers["Cache-Control"] == "no-store"


async def test_a_host_in_the_page_is_one_that_the_guard_lets_pass(send: Any, teacher: ScriptedTeacher) -> None:
    async with run_proxy(teacher, allowed_hosts=["a<b>"]) as proxy:
        got = await send(f"{proxy.address}/", headers={**BROWSER, "Host": "a<b>"})
        assert b"a<b>" not in got.body
        got = await send(f"{proxy.address}/", headers={**BROWSER, "Host": "evil.example"})
        assert got.status == 421


async def test_what_is_no_browser_passes_as_ever(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    for count, headers in enumerate(({"Accept": "*/*"}, {"Accept": "application/json"}, {}), 1):
        await send(f"{proxy.address}/", headers=headers)
        assert teacher.count() == count
    await send(f"{proxy.address}/", {"x": 1}, headers=BROWSER)
    await send(f"{proxy.address}/v1/models", headers=BROWSER)
    assert teacher.count() == 5


@pytest.mark.parametrize(
    "path",
    [
        *("/_kdproxy/nothing", "/_kdproxy/healthz/", "/_kdproxy//healthz", "/_kdproxy/v1/chat/completions"),
        *("/%5Fkdproxy/healthz", "/_kdprox%79/x", "/_kdproxy%2fhealthz", "/_kdproxy/api", "/_kdproxy/%2e%2e/v1/models"),
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN])
async def test_unknown_own_paths_are_ours_and_go_nowhere(
    teacher: ScriptedTeacher, send: Any, path: str, token: str | None
) -> None:
    async with run_proxy(teacher, environment={"KDPROXY_TOKEN": token} if token else {}) as proxy:
        for body in (None, {"model": "m"}):
            got = await send(proxy.address + path, body)
            assert (got.status, orjson.loads(got.body)["error"]["code"]) == (404, "no_such_page")
            assert "/_kdproxy/healthz" in orjson.loads(got.body)["error"]["message"]
    assert teacher.count() == 0


async def test_a_name_that_only_begins_so_is_the_upstreams(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    await send(f"{proxy.address}/_kdproxys/x")
    await send(f"{proxy.address}/v1/_kdproxy/x")
    assert teacher.count() == 2


async def test_a_program_gets_the_health_from_the_own_root(proxy: RunningProxy, send: Any) -> None:
    for path in ("/_kdproxy/", "/_kdproxy", "/_kdproxy/healthz"):
        assert orjson.loads((await send(proxy.address + path)).body) == {"status": "ok"}
