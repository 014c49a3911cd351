"""Routing: which upstream, which URL, which path in the key."""

import pytest

from kdproxy.core.models import Upstream
from kdproxy.core.routing import BUILT_IN, Router, dialect_of, join, name_of
from kdproxy.errors import RequestRefused

CHAT = "/chat/completions"


@pytest.mark.parametrize(
    ("base", "path", "full", "tail"),
    [
        # A version is joined once, whichever side brings it.
        ("/v1", "/v1" + CHAT, "/v1" + CHAT, "/v1" + CHAT),
        ("/v1", CHAT, "/v1" + CHAT, "/v1" + CHAT),
        ("/v1/", CHAT, "/v1" + CHAT, "/v1" + CHAT),
        ("", "/v1" + CHAT, "/v1" + CHAT, "/v1" + CHAT),
        ("/", "/v1" + CHAT, "/v1" + CHAT, "/v1" + CHAT),
        ("", CHAT, CHAT, CHAT),
        # A prefix before the version stays out of the key.
        ("/tenant/v1", "/v1" + CHAT, "/tenant/v1" + CHAT, "/v1" + CHAT),
        ("/tenant", "/v1" + CHAT, "/tenant/v1" + CHAT, "/v1" + CHAT),
        # Bases whose own version the SDK does not know.
        ("/v1beta/openai", "/v1" + CHAT, "/v1beta/openai" + CHAT, CHAT),
        ("/v1beta/openai/", CHAT, "/v1beta/openai" + CHAT, CHAT),
        ("/api/paas/v4", "/v1" + CHAT, "/api/paas/v4" + CHAT, "/v4" + CHAT),
        ("/api/paas/v4", "/v4" + CHAT, "/api/paas/v4" + CHAT, "/v4" + CHAT),
        ("/api/paas/v4", CHAT, "/api/paas/v4" + CHAT, "/v4" + CHAT),
        # Another version of the client replaces a trailing one.
        (
            "/v1",
            "/v1beta/models/m:generateContent",
            "/v1beta/models/m:generateContent",
            "/v1beta/models/m:generateContent",
        ),
        ("/v1beta", "/v1beta/models", "/v1beta/models", "/v1beta/models"),
        # Azure: no version segment, the deployment is in the path.
        ("/openai", "/deployments/d" + CHAT, "/openai/deployments/d" + CHAT, "/deployments/d" + CHAT),
        ("", "/openai/deployments/d" + CHAT, "/openai/deployments/d" + CHAT, "/openai/deployments/d" + CHAT),
        ("/openai/v1", "/v1" + CHAT, "/openai/v1" + CHAT, "/v1" + CHAT),
        # Only whole segments are versions.
        ("/v1", "/v1x-models", "/v1/v1x-models", "/v1/v1x-models"),
        ("/v1", "/vision", "/v1/vision", "/v1/vision"),
        # The rest of a path is left as it came.
        ("/v1", "/v1/models/", "/v1/models/", "/v1/models/"),
        ("/v1", "/v1//models", "/v1//models", "/v1//models"),
        ("/v1", "/v1/models/a%2Fb", "/v1/models/a%2Fb", "/v1/models/a%2Fb"),
        ("/v1", "/v1", "/v1", "/v1"),
        ("/v1", "/v1/", "/v1/", "/v1/"),
    ],
)
def test_join(base: str, path: str, full: str, tail: str) -> None:
    assert join(base, path) == (full, tail)


def test_two_spellings_of_a_base_make_one_key_path() -> None:
    bases = ["https://h/v1", "https://h/v1/", "https://h"]
    routes = [Router([Upstream(name="h", url=base)]).route("/v1" + CHAT) for base in bases]
    assert {route.path for route in routes} == {"/v1" + CHAT}
    assert {route.url for route in routes} == {"https://h/v1" + CHAT}


@pytest.mark.parametrize(
    ("path", "name", "url"),
    [
        ("/v1/chat/completions", "openai", "https://api.openai.com/v1/chat/completions"),
        ("/v1/files", "openai", "https://api.openai.com/v1/files"),
        ("/v1/messages", "anthropic", "https://api.anthropic.com/v1/messages"),
        ("/v1/messages/count_tokens", "anthropic", "https://api.anthropic.com/v1/messages/count_tokens"),
        ("/v1/messages/batches/b", "anthropic", "https://api.anthropic.com/v1/messages/batches/b"),
        (
            "/v1beta/models/m:generateContent",
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
        ),
        ("/upstreams/openai/v1/messages", "openai", "https://api.openai.com/v1/messages"),
        ("/upstreams/anthropic/v1/models", "anthropic", "https://api.anthropic.com/v1/models"),
    ],
)
def test_the_built_in_upstreams_are_chosen_by_path(path: str, name: str, url: str) -> None:
    route = Router([]).route(path)
    assert (route.upstream.name, route.url) == (name, url)


def test_one_upstream_takes_every_path_and_nothing_goes_to_a_built_in() -> None:
    router = Router([Upstream(name="own", url="http://gpu:8000/v1")])
    assert {router.route(path).upstream.name for path in ("/v1/messages", "/v1beta/models", CHAT, "/x")} == {"own"}
    with pytest.raises(RequestRefused) as caught:
        router.route("/upstreams/openai/v1/models")
    assert caught.value.code == "unknown_upstream"


def test_several_upstreams_need_a_name_unless_one_speaks_the_dialect() -> None:
    router = Router(
        [
            Upstream(name="fast", url="http://a/v1", provider="openai"),
            Upstream(name="claude", url="http://b", provider="anthropic"),
            Upstream(name="slow", url="http://c/v1", provider="openai"),
        ]
    )
    assert router.route("/upstreams/slow/chat/completions").url == "http://c/v1/chat/completions"
    assert router.route("/v1/messages").upstream.name == "claude"
    for path in ("/v1/chat/completions", "/v1beta/models"):
        with pytest.raises(RequestRefused) as caught:
            router.route(path)
        assert caught.value.http_status == 404
        assert "claude, fast, slow" in caught.value.hint


def test_the_bare_name_of_an_upstream_is_its_base() -> None:
    assert Router([Upstream(name="a", url="http://h/v1")]).route("/upstreams/a").url == "http://h/v1"


def test_an_upstream_that_was_given_no_name_is_reached_by_the_one_that_it_got() -> None:
    urls = ["https://openrouter.ai/api/v1", "https://api.groq.com/openai/v1", "http://gpu:8000", "http://gpu:8000/b/v1"]
    router = Router([Upstream(name=name_of(url), url=url) for url in urls])
    for url in urls:
        route = router.route(f"/upstreams/{name_of(url)}/v1{CHAT}")
        assert (route.upstream.url, route.url) == (url, url.removesuffix("/v1") + "/v1" + CHAT)
        assert route.path == "/v1" + CHAT
    for path in ("/upstreams/openrouter.ai:443/v1" + CHAT, "/upstreams/openrouter.ai:443/apis/v1" + CHAT):
        with pytest.raises(RequestRefused, match=r"'openrouter\.ai:443'"):
            router.route(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "v1/models",
        "//host/v1",
        "http://host/v1",
        "/../admin",
        "/v1/..",
        "/v1/./models",
        "/v1/%2e%2e/x",
        "/v1/.%2E/x",
        "/v1/%2E",
        "/upstreams/openai/../x",
        "/v1/..%2fadmin",
        "/v1/%2e%2e%5Cadmin",
        "/v1/x%2F..%2Fadmin",
        "/v1/..\\admin",
    ],
)
def test_a_path_that_could_leave_its_prefix_is_refused(path: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        Router([]).route(path)
    assert caught.value.code == "bad_path"


@pytest.mark.parametrize("path", ["/v1/models/...", "/v1/a..b", "/v1/.well-known", "/v1/models/x..", "/v1/%2e%2e%2e"])
def test_dots_inside_a_name_are_fine(path: str) -> None:
    assert Router([]).route(path).path == path


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://API.OpenAI.com", "openai"),
        ("https://api.openai.com.:443/v1/", "openai"),
        ("https://api.together.xyz./v1", "api.together.xyz:443"),
        ("https://api.anthropic.com", "anthropic"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gemini"),
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("https://api.together.xyz/v1", "api.together.xyz:443"),
        ("http://gpu/v1", "gpu:80"),
        ("https://open.bigmodel.cn/api/paas/v4", "open.bigmodel.cn:443/api/paas"),
        ("https://h/tenant-a/v1", "h:443/tenant-a"),
        ("https://user:secret@h:1/v1", "h:1"),
        ("https://evil-api.openai.com.example/v1", "evil-api.openai.com.example:443"),
    ],
)
def test_names_of_upstreams_that_were_given_none(url: str, name: str) -> None:
    assert name_of(url) == name


def test_dialects() -> None:
    assert {upstream.name for upstream in BUILT_IN} == {"openai", "anthropic", "gemini"}
    assert dialect_of("/v1beta/openai/chat/completions") == "openai"
    assert dialect_of("/upload/v1beta/files") == "gemini"
    assert dialect_of("/proxy/v1/messages") == "anthropic"
