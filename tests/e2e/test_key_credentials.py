"""Credentials in bodies: sent, and neither keyed nor stored."""

import json
from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
BASE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "temperature": 0}
MCP = {"type": "mcp", "server_label": "x"}
AZURE = {"endpoint": "https://x", "index_name": "i"}


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("/v1/responses", {"tools": [{**MCP, "server_url": "https://x", "authorization": "CANARY"}]}),
        ("/v1/responses", {"tools": [{**MCP, "headers": {"Authorization": "CANARY", "X-Team": "a"}}]}),
        ("/v1/messages", {"mcp_servers": [{"type": "url", "url": "https://x", "authorization_token": "CANARY"}]}),
        (CHAT, {"api_key": "CANARY"}),
        (CHAT, {"aws_secret_access_key": "CANARY", "aws_session_token": "CANARY", "api_base": "https://x"}),
        (CHAT, {"vertex_credentials": {"private_key": "CANARY", "project": "p"}}),
        (CHAT, {"langfuse_secret": "CANARY", "langfuse_public_key": "pk"}),
        (CHAT, {"fallbacks": [{"model": "n", "api_key": "CANARY"}]}),
        (CHAT, {"data_sources": [{"type": "s", "parameters": {**AZURE, "authentication": {"key": "CANARY"}}}]}),
        (CHAT, {"data_sources": [{"type": "s", "parameters": {**AZURE, "key": "CANARY"}}]}),
        (CHAT, {"dataSources": [{"type": "s", "parameters": {**AZURE, "embeddingKey": "CANARY"}}]}),
        (CHAT, {"extra_headers": {"x-api-key": "CANARY", "x-team": "a"}, "seed": 12345678901234567890123}),
        ("/v1/embeddings", {"api_key": "CANARY", "input": "x"}),
    ],
)
async def test_a_credential_in_a_body_is_neither_keyed_nor_stored_and_is_sent(
    teacher: ScriptedTeacher, send: Any, path: str, secret: dict[str, Any]
) -> None:
    """It pays or opens a door; the same question with another is the same question."""
    headers = {"anthropic-version": "2023-06-01"} if path == "/v1/messages" else {}
    bodies = [
        json.dumps({**BASE, "input": "x", "max_tokens": 9, **secret}).replace("CANARY", f"canary-{number}")
        for number in (1, 2)
    ]
    async with run_proxy(teacher, allow_hosted_tools=True) as proxy:
        first = await send(proxy.address + path, data=bodies[0].encode(), headers=headers)
        again = await send(proxy.address + path, data=bodies[1].encode(), headers=headers)
        # some servers repeat what was asked in their answer
        assert (again.status, again.body) == (200, first.body.replace(b"canary-1", b"********"))
        assert teacher.count() == 1
        assert teacher.calls[0].body == bodies[0].encode()
        files = [file for file in proxy.data_dir.rglob("*") if file.is_file()]
        assert not any(b"canary" in file.read_bytes() for file in files)
        lines = map(json.loads, (proxy.data_dir / "api_recovery.jsonl").read_text("utf-8").splitlines())
        [stored] = [line["request"] for line in lines if line["kind"] == "answer"]
    asked = json.loads(bodies[0])
    assert list(stored) == list(asked)
    assert '"*"' in json.dumps(stored)
    assert "canary-1" not in json.dumps(stored)
    unstarred = json.loads(json.dumps(stored).replace('"*"', '"x"'))
    assert (unstarred["model"], unstarred.get("seed")) == (asked["model"], asked.get("seed"))


async def test_what_a_hidden_header_says_is_in_the_key(teacher: ScriptedTeacher, send: Any) -> None:
    def body(team: str) -> dict[str, Any]:
        return {"model": "m", "input": "x", "tools": [{**MCP, "headers": {"X-Team": team}}]}

    async with run_proxy(teacher, allow_hosted_tools=True) as proxy:
        for team in ("a", "b", "a"):
            await send(f"{proxy.address}/v1/responses", body(team))
        assert b'"X-Team":"*"' in (proxy.data_dir / "api_recovery.jsonl").read_bytes()
    assert teacher.count() == 2
