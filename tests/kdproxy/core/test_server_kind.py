"""Which inference server answers: its own words decide, and where they do not agree nobody is recognised."""

import orjson
import pytest
from multidict import CIMultiDict

from kdproxy.core.models import Upstream
from kdproxy.core.server_kind import Evidence, Recognition, ServerKind, is_free, is_public, recognise, urls


def models(*owners: object, server: str = "uvicorn", status: int = 200) -> Evidence:
    body = orjson.dumps({"object": "list", "data": [{"id": "m", "owned_by": owner} for owner in owners]})
    return Evidence(path="/models", status=status, headers=CIMultiDict({"Server": server}), body=body)


def said(path: str, body: bytes, status: int = 200, server: str = "uvicorn") -> Evidence:
    return Evidence(path=path, status=status, headers=CIMultiDict({"server": server}), body=body)


PROPS = said("/props", b'{"default_generation_settings":{"n_ctx":4096},"total_slots":4,"build_info":"b1"}')
METRICS = b"# HELP vllm:num_requests_running n\n# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0.0\n"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([models("vllm")], Recognition(ServerKind.VLLM)),
        ([models("vllm", "vllm")], Recognition(ServerKind.VLLM)),
        ([models(status=401), said("/metrics", METRICS)], Recognition(ServerKind.VLLM)),
        ([models("sglang")], Recognition(ServerKind.SGLANG)),
        ([said("/get_model_info", b'{"model_path":"m","is_generation":true}')], Recognition(ServerKind.SGLANG)),
        ([models("llamacpp", server="llama.cpp")], Recognition(ServerKind.LLAMA_CPP)),
        ([models("llamacpp"), PROPS], Recognition(ServerKind.LLAMA_CPP, slots=4)),
        # With an API key it names itself in the head of its refusal all the same.
        ([models(status=401, server="llama.cpp")], Recognition(ServerKind.LLAMA_CPP)),
        ([models("library")], Recognition(ServerKind.OLLAMA)),
        ([models("library", "somebody")], Recognition(ServerKind.OLLAMA)),
        ([said("/", b"Ollama is running")], Recognition(ServerKind.OLLAMA)),
        # Gateways.
        ([models("openai")], None),
        ([models("vllm", "openai")], None),
        ([models("library", "openai")], None),
        ([models("openai"), said("/metrics", METRICS)], None),
        ([models("sglang"), said("/metrics", METRICS)], None),
        ([models(None)], None),
        # What says nothing.
        ([], None),
        ([models()], None),
        ([models(server="uvicorn", status=404)], None),
        ([said("/metrics", b"python_gc_objects_collected_total 1\n")], None),
        ([said("/metrics", METRICS, status=500)], None),
        ([said("/", b"<html>vllm</html>")], None),
        ([said("/props", b'{"total_slots":true}')], None),
        ([said("/models", b"not json")], None),
    ],
    ids=repr,
)
def test_only_the_servers_own_words_count(found: list[Evidence], expected: Recognition | None) -> None:
    assert recognise(found) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", False),
        ("[::1]", False),
        ("10.0.0.7", False),
        ("localhost", False),
        ("gpu-7", False),
        ("vllm.team.svc", False),
        ("node.local", False),
        ("8.8.8.8", True),
        ("api.example.com", True),
        ("localhost.example.com", True),
    ],
)
def test_public_is_what_anybody_may_reach(host: str, expected: bool) -> None:
    assert is_public(f"http://{host}:8000/v1") is expected


def test_a_server_of_ones_own_is_free_and_nothing_else() -> None:
    own, hosted = Upstream(name="u", url="http://gpu-7:8000/v1"), Upstream(name="u", url="https://api.example.com/v1")
    assert is_free(Recognition(ServerKind.VLLM), own, "m")
    assert not is_free(None, own, "m")
    # Some paid APIs show that vLLM runs them.
    assert not is_free(Recognition(ServerKind.VLLM), hosted, "m")
    assert not is_free(Recognition(ServerKind.OLLAMA), own, "gpt-oss:120b-cloud")
    assert is_free(Recognition(ServerKind.OLLAMA), own, "gpt-oss:20b")


@pytest.mark.parametrize("url", ["http://h:8000/v1", "http://h:8000", "http://h:8000/v1/"])
def test_it_is_asked_below_its_root(url: str) -> None:
    asked = dict(urls(Upstream(name="u", url=url)))
    assert asked["/models"] == "http://h:8000/v1/models"
    assert asked["/props"] == "http://h:8000/props"


def test_a_prefix_is_kept() -> None:
    asked = dict(urls(Upstream(name="u", url="https://h/llm/v1")))
    assert (asked["/models"], asked["/metrics"]) == ("https://h/llm/v1/models", "https://h/llm/metrics")
