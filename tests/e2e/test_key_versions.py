"""Answers that an earlier key version bought are found, and only by the requests that they answer."""

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from kdproxy.core import record
from kdproxy.core.models import Upstream
from kdproxy.ops.scrub import scrubbed
from kdproxy.providers.question import Asking, endpoint_of, v1_key
from kdproxy.storage.rewrite import rewrite
from kdproxy.testing.proxy import run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "temperature": 0}
OLD = b'{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"old"}}]}'


def old_line(body: dict[str, Any], *, answer: bytes = OLD, path: str = CHAT) -> bytes:
    """A line as a release with key version 1 wrote it."""
    endpoint = endpoint_of("POST", path)
    assert endpoint is not None
    request = json.dumps(body, separators=(",", ":")).encode()
    upstream = Upstream(name="teacher", url="http://teacher")
    key = v1_key(endpoint, Asking(upstream=upstream, path=path, query="", headers=CIMultiDict(), body=request))
    members = {
        "v": 1,
        "kind": "answer",
        "namespace": "default",
        "key": key,
        "ordinal": 0,
        "form": "json",
        "prompt_hash": None,
        "upstream": "teacher",
        "provider": endpoint.provider,
        "endpoint": endpoint.name,
        "model": "m",
        "method": "POST",
        "path": path,
        "query": "",
        "request_headers": [],
        "request": orjson.Fragment(request),
        "status": 200,
        "headers": [["Content-Type", "application/json"]],
        "stream_options": None,
        "usage": None,
        "cost_usd": None,
        "response_id": None,
        "created_at": 1.0,
        "elapsed_seconds": None,
        "body": answer.decode(),
    }
    return record.seal(orjson.dumps(members))


async def keep(data_dir: Path, *lines: bytes) -> None:
    async with ScriptedTeacher() as nobody, run_proxy([f"teacher={nobody.base_url}"], data_dir=data_dir):
        pass
    with (data_dir / "api_recovery.jsonl").open("ab") as file:
        file.writelines(lines)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"user": "u", "metadata": {"a": "b"}},
        {"prompt_cache_options": {"ttl": "30m"}},
        {"request_id": "r-1", "priority": 3},
        {"guided_regex": "x+"},
    ],
)
async def test_an_answer_under_the_old_key_is_a_hit(send: Any, tmp_path: Path, more: dict[str, Any]) -> None:
    body = {**BODY, **more}
    await keep(tmp_path, old_line(body))
    async with ScriptedTeacher() as teacher, run_proxy([f"teacher={teacher.base_url}"], data_dir=tmp_path) as proxy:
        got = await send(proxy.address + CHAT, body)
        assert (got.body, teacher.count()) == (OLD, 0)
        assert "hit" in got.cache


async def test_an_old_answer_is_found_after_its_credential_was_scrubbed(send: Any, tmp_path: Path) -> None:
    body = {**BODY, "api_key": "canary-0123456789"}
    await keep(tmp_path, old_line(body))
    assert [each.changed for each in rewrite(tmp_path, scrubbed, command="test")] == [1]
    async with ScriptedTeacher() as teacher, run_proxy([f"teacher={teacher.base_url}"], data_dir=tmp_path) as proxy:
        assert ((await send(proxy.address + CHAT, body)).body, teacher.count()) == (OLD, 0)


@pytest.mark.parametrize("header", ["x-portkey-provider", "azureml-model-deployment", "helicone-target-url"])
async def test_not_for_a_request_with_a_header_that_the_old_key_did_not_hold(
    send: Any, tmp_path: Path, header: str
) -> None:
    """The old answer may have come by another route."""
    await keep(tmp_path, old_line(BODY))
    async with ScriptedTeacher() as teacher, run_proxy([f"teacher={teacher.base_url}"], data_dir=tmp_path) as proxy:
        bought = await send(proxy.address + CHAT, BODY, headers={header: "a"})
        assert (bought.body != OLD, teacher.count()) == (True, 1)
        assert (await send(proxy.address + CHAT, BODY, headers={header: "a"})).body == bought.body
        await send(proxy.address + CHAT, BODY, headers={header: "b"})
        assert teacher.count() == 2
        assert (await send(proxy.address + CHAT, BODY)).body == OLD
        assert b'"sha256:' in (tmp_path / "api_recovery.jsonl").read_bytes()
        assert teacher.count() == 2


async def test_a_new_answer_goes_before_the_old_one(send: Any, tmp_path: Path) -> None:
    await keep(tmp_path, old_line(BODY))
    async with ScriptedTeacher() as teacher, run_proxy([f"teacher={teacher.base_url}"], data_dir=tmp_path) as proxy:
        fresh = await send(proxy.address + CHAT, BODY, headers={"Cache-Control": "no-cache"})
        assert "fwd=request" in fresh.cache, "something was stored"
        assert (await send(proxy.address + CHAT, BODY)).body == fresh.body != OLD
        kept = await send(proxy.address + CHAT, BODY, headers={"Kdproxy-Mode": "record"})
        assert "stored" not in kept.cache
        assert (await send(proxy.address + CHAT, BODY)).body == fresh.body


async def test_record_mode_keeps_nothing_beside_an_old_answer(send: Any, tmp_path: Path) -> None:
    await keep(tmp_path, old_line(BODY))
    async with ScriptedTeacher() as teacher, run_proxy([f"teacher={teacher.base_url}"], data_dir=tmp_path) as proxy:
        got = await send(proxy.address + CHAT, BODY, headers={"Kdproxy-Mode": "record"})
        assert "stored" not in got.cache
        assert (await send(proxy.address + CHAT, BODY)).body == OLD


RESPONSE = {"model": "m", "input": "Why?", "temperature": 0}


@pytest.mark.parametrize(
    ("path", "body", "without", "wanting"),
    [
        (CHAT, BODY, {"store": False}, {"store": True}),
        ("/v1/responses", RESPONSE, {"store": False}, {"store": True}),
        ("/v1/responses", RESPONSE, {"store": False}, {}),
        ("/v1/responses", RESPONSE, {"store": False}, {"store": None}),
    ],
)
async def test_an_answer_without_a_copy_at_the_provider_is_none_where_a_copy_is_asked_for(
    send: Any,
    tmp_path: Path,
    path: str,
    body: dict[str, Any],
    without: dict[str, Any],
    wanting: dict[str, Any],
) -> None:
    async with ScriptedTeacher() as teacher, run_proxy([f"teacher={teacher.base_url}"], data_dir=tmp_path) as proxy:
        first = await send(proxy.address + path, {**body, **without})
        assert (await send(proxy.address + path, {**body, **without})).body == first.body
        copied = await send(proxy.address + path, {**body, **wanting})
        assert (copied.body != first.body, teacher.count()) == (True, 2)
        for more, bought in ((wanting, copied), (without, first), (wanting, copied)):
            assert (await send(proxy.address + path, {**body, **more})).body == bought.body, "each the first that fits"
        assert teacher.count() == 2
    async with ScriptedTeacher() as nobody, run_proxy([f"teacher={nobody.base_url}"], data_dir=tmp_path) as proxy:
        for more, bought in ((wanting, copied), (without, first)):
            assert (await send(proxy.address + path, {**body, **more})).body == bought.body, "after a restart too"


async def test_an_old_line_says_in_its_request_whether_there_is_a_copy(send: Any, tmp_path: Path) -> None:
    await keep(tmp_path, old_line({**BODY, "store": True}))
    async with ScriptedTeacher() as teacher, run_proxy([f"teacher={teacher.base_url}"], data_dir=tmp_path) as proxy:
        assert (await send(proxy.address + CHAT, {**BODY, "store": True})).body == OLD
    await keep(tmp_path, old_line({**BODY, "seed": 1, "store": False}))
    async with ScriptedTeacher() as teacher, run_proxy([f"teacher={teacher.base_url}"], data_dir=tmp_path) as proxy:
        assert (await send(proxy.address + CHAT, {**BODY, "seed": 1, "store": True})).body != OLD
        assert teacher.count() == 1


async def test_a_request_that_wants_a_copy_joins_no_call_that_asks_for_none(send: Any) -> None:
    async with ScriptedTeacher() as teacher, run_proxy(teacher) as proxy:
        bodies = await asyncio.gather(
            *(send(proxy.address + CHAT, {**BODY, "store": store}) for store in (False, True, False, True))
        )
        assert teacher.count() == 2
    assert bodies[0].body == bodies[2].body != bodies[1].body == bodies[3].body
