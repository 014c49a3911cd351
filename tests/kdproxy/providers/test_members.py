"""What is in the key, out of it, and no pure question: a row a situation, taken from public reports and references."""

from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from kdproxy.core.models import Question, Upstream
from kdproxy.providers.base import NotAQuestion
from kdproxy.providers.question import Asking, endpoint_of, read

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
GEMINI = "/v1beta/models/g:generateContent"
UPSTREAM = Upstream(name="u", url="http://u")
TEXT = {"type": "text", "text": "Why?"}
BASE: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": [TEXT]}]},
    RESPONSES: {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}]},
    MESSAGES: {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [TEXT]}]},
    GEMINI: {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]},
    "/v1/embeddings": {"model": "m", "input": "x"},
}
CACHE = {"type": "ephemeral"}


def asked(path: str, body: dict[str, Any], *, allow: bool = False) -> Question | NotAQuestion:
    endpoint = endpoint_of("POST", path)
    assert endpoint is not None
    asking = Asking(upstream=UPSTREAM, path=path, query="", headers=CIMultiDict(), body=orjson.dumps(body))
    return read(endpoint, asking, allow_hosted_tools=allow)


def key_of(path: str, body: dict[str, Any]) -> str:
    found = asked(path, body)
    assert isinstance(found, Question), found
    return found.key


def chat(part: dict[str, Any], **message: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{**TEXT, **part}], **message}]}


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {"request_id": "r", "priority": 1, "cache_salt": "s"}),
        (CHAT, {"rid": "r"}),
        (CHAT, {"session_id": "s", "trace": {"trace_id": "t"}, "user": "u"}),
        (CHAT, {"litellm_call_id": "c", "litellm_metadata": {"a": 1}, "langfuse_public_key": "k"}),
        (
            CHAT,
            {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "explicit"}},
        ),
        (CHAT, {"prompt_cache_options": {"ttl": "30m", "prewarm": False}}),
        (CHAT, {"cache_control": CACHE, "cache_control_injection_points": [{"location": "message"}]}),
        (CHAT, chat({"cache_control": CACHE})),
        (CHAT, chat({}, cache_control=CACHE)),
        (CHAT, chat({"prompt_cache_breakpoint": {"type": "ephemeral"}})),
        (RESPONSES, {"prompt_cache_options": {"comparison_response_id": "resp_1"}, "client_metadata": {"a": "b"}}),
        (
            RESPONSES,
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_text", "text": "Why?", "prompt_cache_breakpoint": {}}],
                    }
                ]
            },
        ),
        (MESSAGES, {"cache_control": CACHE, "metadata": {"user_id": "u"}, "stream": True}),
        (MESSAGES, {"billing_policy": {"type": "billing_policy", "bill_to": "user_profile"}}),
        (MESSAGES, {"fallback_credit_token": "t"}),
        (MESSAGES, {**chat({"cache_control": {"type": "ephemeral", "ttl": "1h"}})}),
        (GEMINI, {"labels": {"team": "a"}}),
        ("/v1/embeddings", {"user": "u", "request_id": "r", "priority": 2}),
    ],
    ids=str,
)
def test_what_cannot_change_the_answer_is_out(path: str, more: dict[str, Any]) -> None:
    assert key_of(path, {**BASE[path], **more}) == key_of(path, BASE[path])


TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"cache_control": {"type": "string"}}}}


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {"fallbacks": ["n"]}),
        (CHAT, {"models": ["m", "n"]}),
        (CHAT, {"provider": {"order": ["a"]}}),
        (CHAT, {"moderation": {"model": "omni-moderation-latest"}}),
        (CHAT, {"service_tier": "flex"}),
        (CHAT, {"usage": {"include": True}}),
        (CHAT, {"anything_new": 1}),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": False}}),
        (CHAT, {"cache_prompt": False}),
        (CHAT, {"metadata_": 1}),
        (CHAT, {"inner": {"user": "u", "api_key": "k", "cache_control": CACHE}}),
        (CHAT, {"api_base": "https://other"}),
        (RESPONSES, {"truncation": "auto"}),
        (RESPONSES, {"context_management": [{"type": "compaction", "compact_threshold": 9}]}),
        (RESPONSES, {"image": {"context_compression": "enabled"}}),
        (RESPONSES, {"access_programs": {"cyber": "standard"}}),
        (RESPONSES, {"include": ["reasoning.encrypted_content"]}),
        (MESSAGES, {"fallbacks": [{"model": "n"}]}),
        (MESSAGES, {"context_management": {"edits": []}}),
        (MESSAGES, {"tools": [TOOL]}),
        (MESSAGES, {"system": [{"type": "text", "text": "s"}]}),
        (GEMINI, {"safetySettings": [{"category": "c", "threshold": "t"}]}),
        ("/v1/embeddings", {"dimensions": 8}),
    ],
    ids=str,
)
def test_what_can_change_the_answer_is_in(path: str, more: dict[str, Any]) -> None:
    assert key_of(path, {**BASE[path], **more}) != key_of(path, BASE[path])


def test_a_cache_marker_inside_a_schema_is_the_schemas() -> None:
    marked = {**TOOL, "cache_control": CACHE}
    without = {**TOOL, "input_schema": {"type": "object", "properties": {}}}
    keys = [key_of(MESSAGES, {**BASE[MESSAGES], "tools": [tool]}) for tool in (TOOL, marked, without)]
    assert keys[0] == keys[1] != keys[2]
    calls = [
        {**BASE[MESSAGES], "messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": given}]}]}
        for given in ({"cache_control": CACHE}, {})
    ]
    assert key_of(MESSAGES, calls[0]) != key_of(MESSAGES, calls[1])


def addition(tool: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "tool_addition", "tool": tool}]}]}


HOSTED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"search_parameters": {"mode": "auto"}}),
    (CHAT, {"search_parameters": {"sources": [{"type": "web"}]}}),
    (CHAT, {"plugins": [{"id": "web"}]}),
    (CHAT, {"plugins": [{"id": "file-parser"}]}),
    (CHAT, {"model": "openai/gpt-5.2:online"}),
    (CHAT, {"models": ["m", "n:online"]}),
    (CHAT, {"model": "gpt-4o-search-preview"}),
    (CHAT, {"model": "gpt-4o-mini-search-preview-2025-03-11"}),
    (CHAT, {"model": "gpt-5-search-api"}),
    (CHAT, {"model": "sonar"}),
    (CHAT, {"model": "perplexity/sonar-pro"}),
    (CHAT, {"model": "sonar-deep-research"}),
    (CHAT, {"model": "llama-3.1-sonar-large-128k-online"}),
    (CHAT, {"model": "groq/compound"}),
    (CHAT, {"model": "compound-beta"}),
    (CHAT, {"enable_search": True}),
    (CHAT, {"enable_enhancement": True}),
    (CHAT, {"web_search": {"enable": True}}),
    (CHAT, {"venice_parameters": {"enable_web_search": "on"}}),
    (CHAT, {"web_search_options": {}}),
    (CHAT, {"data_sources": [{"type": "azure_search", "parameters": {}}]}),
    (CHAT, {"vector_store_ids": ["v"]}),
    (CHAT, {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]}),
    (CHAT, {"tools": [{"googleSearch": {}}]}),
    (CHAT, {"tools": [{"type": "web_search", "web_search": {"enable": True}}]}),
    (CHAT, {"tools": [None]}),
    (RESPONSES, {"model": "o3-deep-research"}),
    (RESPONSES, {"tools": [{"type": "web_search"}]}),
    (RESPONSES, {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}),
    (RESPONSES, {"tools": [{"type": "shell"}]}),
    (RESPONSES, {"tools": [{"type": "programmatic_tool_calling"}]}),
    (RESPONSES, {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]}),
    (RESPONSES, {"input": [{"type": "additional_tools", "role": "developer", "tools": [{"type": "web_search"}]}]}),
    (MESSAGES, {"tools": [{"type": "web_search_20260318", "name": "w"}]}),
    (MESSAGES, {"tools": [{"type": "advisor_20260301", "name": "a"}]}),
    (MESSAGES, {"tools": [{"type": "mcp_toolset", "mcp_server_name": "s"}]}),
    (MESSAGES, {"tools": [{"type": "code_execution_20260521", "name": "c"}]}),
    (MESSAGES, addition({"type": "tool_definition", "definition": {"type": "web_fetch_20260318", "name": "w"}})),
    (MESSAGES, addition({"type": "mcp_toolset_reference", "mcp_server_name": "s"})),
    (MESSAGES, addition(None)),
    (MESSAGES, {"container": "c"}),
    (GEMINI, {"tools": [{"googleSearch": {}}]}),
    (GEMINI, {"tools": [{"google_search_retrieval": {}}]}),
    (GEMINI, {"tools": [{"functionDeclarations": []}, {"urlContext": {}}]}),
    (GEMINI, {"tools": [{"functionDeclarations": [], "codeExecution": {}}]}),
]


@pytest.mark.parametrize(("path", "more"), HOSTED, ids=str)
def test_what_looks_at_the_world_passes_unless_it_is_allowed(path: str, more: dict[str, Any]) -> None:
    found = asked(path, {**BASE[path], **more})
    assert isinstance(found, NotAQuestion)
    assert found.reason.startswith("hosted tool ")
    assert isinstance(asked(path, {**BASE[path], **more}, allow=True), Question)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {"prompt_cache_options": {"prewarm": True}}),
        (CHAT, {"deferred": True}),
        (CHAT, {"session_params": {"id": "s"}}),
        (CHAT, {"cached_content": "c"}),
        (CHAT, {"extra_body": {"google": {"cached_content": "c"}}}),
        (RESPONSES, {"prompt_cache_options": {"prewarm": True}}),
        (RESPONSES, {"generate": False}),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        (RESPONSES, {"input": [{"id": "msg_1"}]}),
        (RESPONSES, {"background": True}),
        (RESPONSES, {"conversation": "c"}),
        (RESPONSES, {"prompt": {"id": "p"}}),
        (MESSAGES, {"thread": {"type": "continue", "previous_message_id": "msg_1"}}),
        (MESSAGES, {"max_tokens": 0}),
        (MESSAGES, {"diagnostics": {"previous_message_id": "msg_1"}}),
        (GEMINI, {"cachedContent": "c"}),
        (GEMINI, {"cached_content": "c"}),
        (GEMINI, {"continuationToken": "t"}),
        (GEMINI, {"continuation_token": "t"}),
    ],
    ids=str,
)
def test_what_depends_on_the_provider_passes_always(path: str, more: dict[str, Any]) -> None:
    for allow in (False, True):
        found = asked(path, {**BASE[path], **more}, allow=allow)
        assert isinstance(found, NotAQuestion)
        assert not found.reason.startswith("hosted tool")


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {"search_parameters": {"mode": "off"}}),
        (CHAT, {"search_parameters": None}),
        (CHAT, {"plugins": []}),
        (CHAT, {"enable_search": False}),
        (CHAT, {"web_search": {"enable": False}}),
        (CHAT, {"venice_parameters": {"enable_web_search": "off"}}),
        (CHAT, {"tools": [{"function": {"name": "f", "parameters": {}}}]}),
        (CHAT, {"tools": [{"name": "f", "input_schema": {}}]}),
        (CHAT, {"tools": [{"functionDeclarations": []}]}),
        (CHAT, {"model": "Search-R1-qwen", "deferred": False}),
        (CHAT, {"model": "online-dpo-7b"}),
        (CHAT, {"model": "chem-compounds-7b"}),
        (RESPONSES, {"tools": [{"type": "local_shell"}, {"type": "apply_patch"}, {"type": "tool_search"}]}),
        (RESPONSES, {"tools": [{"type": "shell", "environment": {"type": "local"}}]}),
        (
            RESPONSES,
            {"tools": [{"type": "computer"}, {"type": "computer_use_preview"}, {"type": "custom", "name": "c"}]},
        ),
        (RESPONSES, {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}]}),
        (RESPONSES, {"input": [{"type": "additional_tools", "tools": [{"type": "function", "name": "f"}]}]}),
        (RESPONSES, {"input": [{"type": "message", "id": "msg_1", "role": "assistant", "content": []}]}),
        (RESPONSES, {"prompt": {"id": "p", "version": "2"}}),
        (RESPONSES, {"background": False, "conversation": None}),
        (MESSAGES, {"tools": [{"type": "tool_search_tool_bm25_20251119", "name": "t"}, TOOL]}),
        (MESSAGES, {"tools": [{"type": "memory_20250818", "name": "m"}, {"type": "bash_20250124", "name": "b"}]}),
        (MESSAGES, {"tools": [{"type": "computer_toolset_20260801"}, {"type": "browser_toolset_20260801"}]}),
        (MESSAGES, {"thread": {"type": "create"}}),
        (MESSAGES, {"mcp_servers": [], "container": None, "diagnostics": {"previous_message_id": None}}),
        (MESSAGES, addition({"type": "tool_definition", "definition": TOOL})),
        (MESSAGES, addition({"type": "tool_reference", "name": "f"})),
        (GEMINI, {"tools": [{"functionDeclarations": []}, {"computerUse": {"environment": "b"}}]}),
        (GEMINI, {"tools": [{"function_declarations": []}], "cachedContent": ""}),
    ],
    ids=str,
)
def test_what_the_client_runs_or_switches_off_is_pure(path: str, more: dict[str, Any]) -> None:
    assert isinstance(asked(path, {**BASE[path], **more}), Question)
