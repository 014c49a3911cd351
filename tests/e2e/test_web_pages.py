"""Web pages against a local proxy: what people have reported of ollama, LM Studio, vLLM, Jupyter and MCP servers.

A page cannot forge `Origin` and `Sec-Fetch-Site`: its browser sets them. Each case is what a browser sends.
"""

from typing import Any

import orjson
import pytest

from kdproxy.errors import ConfigError
from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import Respond, ScriptedTeacher
from tests.wire import WireServer, answer, chat_body
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio

TOKEN = "proxy-token-0123456789"
CORS = (
    "Access-Control-Allow-Origin",
    "access-control-allow-credentials",
    "ACCESS-CONTROL-EXPOSE-HEADERS",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Headers",
    "Access-Control-Max-Age",
    "Access-Control-Allow-Private-Network",
    "Timing-Allow-Origin",
    "Cross-Origin-Resource-Policy",
)
TEXT = {"Content-Type": "text/plain"}
"""Of a POST that a browser sends without a preflight."""

PAGES: dict[str, tuple[str, str, dict[str, str]]] = {
    "ollama-300: a site uses the local model": ("POST", CHAT, TEXT | {"Origin": "https://evil.example"}),
    "the same by a browser that sends both": (
        "POST",
        CHAT,
        TEXT | {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ),
    "ollama-2291: a Tauri application": ("POST", CHAT, {"Origin": "tauri://localhost"}),
    "ollama-3016: an extension": ("POST", CHAT, {"Origin": "chrome-extension://abcdefghijklmnop"}),
    "Obsidian": ("POST", CHAT, {"Origin": "app://obsidian.md"}),
    "open-interpreter-97: a sandboxed frame, a local file": ("POST", CHAT, {"Origin": "null"}),
    "jupyter-services-51: an origin without a scheme": ("POST", CHAT, {"Origin": "127.0.0.1:8888"}),
    "another port of localhost": ("POST", CHAT, {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}),
    "MCP inspector: a GET without Origin": ("GET", "/v1/models", {"Sec-Fetch-Site": "cross-site"}),
    "an image": ("GET", "/v1/files/x", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}),
    "a script": ("GET", "/v1/models", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "script"}),
    "a link to the API": (
        "GET",
        "/v1/models",
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ),
    "a form": (
        "POST",
        "/v1/files",
        {"Origin": "https://evil.example", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ),
    "a frame with the page": (
        "GET",
        "/",
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ),
    "the page read by a script": ("GET", "/_kdproxy/", {"Origin": "https://evil.example"}),
    "health read by a script": ("GET", "/_kdproxy/healthz", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}),
    "an unknown own path": ("GET", "/_kdproxy/x", {"Origin": "https://evil.example"}),
    "an unknown value": ("GET", "/v1/models", {"Sec-Fetch-Site": "same-planet"}),
    "no value": ("GET", "/v1/models", {"Sec-Fetch-Site": ""}),
    "an empty origin": ("POST", CHAT, {"Origin": ""}),
    "vllm: a preflight": (
        "OPTIONS",
        CHAT,
        {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    ),
    "lmstudio-392: a preflight to a private network": (
        "OPTIONS",
        CHAT,
        {
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
            "Access-Control-Request-Private-Network": "true",
        },
    ),
    "a preflight to the API of the proxy": (
        "OPTIONS",
        "/_kdproxy/api/stats",
        {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    ),
    "a preflight whose origin was removed on the way": ("OPTIONS", CHAT, {"Access-Control-Request-Method": "POST"}),
}


@pytest.mark.parametrize("token", [None, TOKEN], ids=["without a token", "with a token"])
@pytest.mark.parametrize("case", PAGES)
async def test_a_page_of_another_origin_is_refused(
    teacher: ScriptedTeacher, send: Any, case: str, token: str | None
) -> None:
    method, path, headers = PAGES[case]
    async with run_proxy(teacher, environment={"KDPROXY_TOKEN": token} if token else {}) as proxy:
        if token:
            headers = headers | {"Authorization": f"Bearer {token}"}
        got = await send(proxy.address + path, ASK if method == "POST" else None, method=method, headers=headers)
        assert (got.status, orjson.loads(got.body)["error"]["code"]) == (403, "cross_origin")
        assert b"allowed_origins" in got.body
        assert b"evil" not in got.body
        assert not [name for name in got.headers if name.lower().startswith("access-control")]
        assert got.headers["x-should-retry"] == "false"
    assert teacher.count() == 0


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/_kdproxy/healthz"])
@pytest.mark.parametrize("origin", ["http://rebind.example:8400", None])
async def test_a_rebound_name_is_refused_although_its_page_is_of_the_same_origin(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, path: str, origin: str | None
) -> None:
    # CVE-2024-28224 (ollama), CVE-2025-66414 (MCP): to the browser both are one origin.
    headers = {"Host": "rebind.example:8400", "Sec-Fetch-Site": "same-origin"} | ({"Origin": origin} if origin else {})
    got = await send(proxy.address + path, ASK if path == CHAT else None, headers=headers)
    assert got.status == 421
    assert teacher.count() == 0


async def test_two_origins_are_none(teacher: ScriptedTeacher, proxy: RunningProxy, exchange: Any) -> None:
    host = proxy.address.removeprefix("http://")
    for first, second in ((proxy.address, "https://evil.example"), ("https://evil.example", proxy.address)):
        request = (
            f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nOrigin: {first}\r\nOrigin: {second}\r\n"
            "Connection: close\r\n\r\n"
        )
        assert (await exchange(proxy.address, request.encode())).split()[1] in (b"400", b"403")
    assert teacher.count() == 0


PROGRAMS: dict[str, dict[str, str]] = {
    "a program": {},
    "Node.js": {"Sec-Fetch-Mode": "cors", "Accept-Language": "*"},
    "a typed address": {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    "a page of the proxy's own origin": {"Origin": "{}", "Sec-Fetch-Site": "same-origin"},
    "behind a TLS server that keeps the Host": {"Origin": "https://{host}", "Sec-Fetch-Site": "same-origin"},
}


@pytest.mark.parametrize("case", PROGRAMS)
async def test_programs_and_the_own_origin_pass(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, case: str
) -> None:
    host = proxy.address.removeprefix("http://")
    headers = {name: value.format(proxy.address, host=host) for name, value in PROGRAMS[case].items()}
    assert (await send(proxy.address + CHAT, ASK, headers=headers)).status == 200
    assert (await send(f"{proxy.address}/v1/models", headers=headers)).status == 200
    assert teacher.count() == 2


async def test_a_link_may_lead_to_the_page(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for path in ("/", "/_kdproxy/"):
        got = await send(proxy.address + path, headers=link | {"Accept": "text/html"})
        assert got.status == 200
        assert "frame-ancestors 'none'" in got.headers["Content-Security-Policy"]
    assert teacher.count() == 0


async def test_an_application_that_is_allowed_may_call_and_others_not(teacher: ScriptedTeacher, send: Any) -> None:
    allowed = ["tauri://localhost", "chrome-extension://abc", "https://chat.example:8443"]
    async with run_proxy(teacher, allowed_origins=allowed) as proxy:
        for origin in (*allowed, "HTTPS://Chat.Example:8443"):
            got = await send(proxy.address + CHAT, ASK, headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
            assert got.status == 200, origin
            assert not [name for name in got.headers if name.lower().startswith("access-control")]
        for origin in (
            "https://chat.example",
            "http://chat.example:8443",
            "https://x.chat.example:8443",
            "tauri://localhostx",
        ):
            assert (await send(proxy.address + CHAT, ASK, headers={"Origin": origin})).status == 403, origin
        # The API of the proxy is for no browser at all.
        got = await send(f"{proxy.address}/_kdproxy/api/stats", {}, headers={"Origin": allowed[0]})
        assert (got.status, orjson.loads(got.body)["error"]["code"]) == (403, "not_for_browsers")


@pytest.mark.parametrize("origin", ["*", "null", "https://*.example", "chat.example", "https://a/b", "https://a/", ""])
async def test_what_is_no_origin_is_a_mistake_of_the_config(teacher: ScriptedTeacher, origin: str) -> None:
    with pytest.raises(ConfigError, match="allowed_origins"):
        async with run_proxy(teacher, allowed_origins=[origin]):
            pytest.fail("it listens")


async def test_no_cors_header_comes_back_on_a_hit_a_miss_or_a_pass_through(
    proxy: RunningProxy, teacher: ScriptedTeacher, send: Any
) -> None:
    headers = {**dict.fromkeys(CORS, "*"), "X-Kept": "1", "Content-Type": "application/json"}
    wanted = {name.lower() for name in CORS}
    for path, body in ((CHAT, orjson.dumps(chat_body())), ("/v1/files", b"{}"), (CHAT, b'{"error": {}}')):
        status = 400 if b"error" in body else 200
        teacher.script(Respond(status, headers, body))
        question = {**ASK, "model": f"m{status}"}
        got = await send(proxy.address + path, question)
        assert (got.status, got.headers["X-Kept"]) == (status, "1")
        assert not {name.lower() for name in got.headers} & wanted
    hit = await send(proxy.address + CHAT, {**ASK, "model": "m200"})
    assert hit.cache.startswith("kdproxy; hit")
    assert not {name.lower() for name in hit.headers} & wanted


async def test_a_stream_has_no_cors_header_either(send: Any) -> None:
    line = "Access-Control-Allow-Origin: *"
    play = [answer(b"data: [DONE]\n\n", kind="text/event-stream", headers=(line, "X-Kept: 1"))]
    async with WireServer(play) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + CHAT, {**ASK, "stream": True})
    assert got.headers["X-Kept"] == "1"
    assert "Access-Control-Allow-Origin" not in got.headers
