"""Samples: what the requests of a run get, in one attempt, in the next, after a kill, and when clients leave."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy, run_proxy_process
from kdproxy.testing.teacher import Respond, ScriptedTeacher, ServerError
from tests.wire.asks import ASK

pytestmark = pytest.mark.asyncio

STREAM: dict[str, Any] = {**ASK, "stream": True}


def chat(place: str = "") -> str:
    return f"{place}/v1/chat/completions"


async def until(condition: Any) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_attempt_gets_new_samples_and_the_next_one_the_same(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    first = [await send(proxy.address + chat("/runs/r/attempts/one"), ASK) for _ in range(4)]
    assert len({answer.body for answer in first}) == 4
    assert [answer.headers["Kdproxy-Sample"] for answer in first] == ["0", "1", "2", "3"]
    again = [await send(proxy.address + chat("/runs/r/attempts/two"), ASK) for _ in range(5)]
    assert [answer.body for answer in again[:4]] == [answer.body for answer in first]
    assert again[4].body not in {answer.body for answer in first}
    assert teacher.count() == 5


async def test_equal_requests_at_once_get_a_sample_each(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    got = await asyncio.gather(*(send(proxy.address + chat("/runs/r"), STREAM) for _ in range(20)))
    assert sorted(int(answer.headers["Kdproxy-Sample"]) for answer in got) == list(range(20))
    assert len({answer.body for answer in got}) == 20
    assert teacher.count() == 20


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"top_k": 1}, {"seed": 7}], ids=str)
async def test_a_question_whose_answers_cannot_differ_has_one(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, settings: Any
) -> None:
    got = [await send(proxy.address + chat("/runs/r"), {**ASK, **settings}) for _ in range(3)]
    assert len({answer.body for answer in got}) == 1
    assert teacher.count() == 1


async def test_stream_and_json_share_one_counter(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    got = [await send(proxy.address + chat("/runs/r"), body) for body in (ASK, STREAM, ASK)]
    assert [answer.headers["Kdproxy-Sample"] for answer in got] == ["0", "1", "2"]


async def test_an_error_gives_its_sample_back(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    teacher.script(*[ServerError(400)])
    refused = await send(proxy.address + chat("/runs/r"), ASK)
    assert refused.status == 400
    assert (await send(proxy.address + chat("/runs/r"), ASK)).headers["Kdproxy-Sample"] == "0"


async def test_who_comes_after_a_client_that_left_joins_its_call(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    teacher.hold()
    asking = asyncio.create_task(send(proxy.address + chat("/runs/r"), ASK))
    await until(lambda: teacher.count() == 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: all(flight.waiters == 0 for flight in proxy.app._flights._tasks))
    second = asyncio.create_task(send(proxy.address + chat("/runs/r"), ASK))
    await until(lambda: any(flight.waiters == 1 for flight in proxy.app._flights._tasks))
    teacher.release()
    assert (await second).headers["Kdproxy-Sample"] == "0"
    assert teacher.count() == 1


async def test_a_marked_retry_waits_for_its_own_former_connection(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    teacher.hold()
    asking = asyncio.create_task(send(proxy.address + chat("/runs/r"), ASK))
    await until(lambda: teacher.count() == 1)
    retry = asyncio.create_task(send(proxy.address + chat("/runs/r"), ASK, headers={"x-stainless-retry-count": "1"}))
    runs = proxy.app._flow._samples.runs
    await until(lambda: any(attempt._waiting for attempt in runs._by_ref.values()))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    teacher.release()
    assert (await retry).headers["Kdproxy-Sample"] == "0"
    assert teacher.count() == 1


async def test_a_killed_proxy_remembers_what_was_used(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process(teacher, tmp_path / "data") as running:
        first = [await send(running.base_url.removesuffix("/v1") + chat("/runs/r"), ASK) for _ in range(3)]
        await running.kill()
    async with run_proxy_process(teacher, tmp_path / "data") as running:
        address = running.base_url.removesuffix("/v1")
        fourth = await send(address + chat("/runs/r"), ASK)
        again = [await send(address + chat("/runs/r/attempts/new"), ASK) for _ in range(4)]
    assert fourth.headers["Kdproxy-Sample"] == "3"
    assert [answer.body for answer in again] == [answer.body for answer in (*first, fourth)]
    assert teacher.count() == 4


async def test_a_sample_by_number_fresh_and_collapsed(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    async def ask(place: str, sample: str) -> Any:
        return await send(proxy.address + chat(place), ASK, headers={"Kdproxy-Sample": sample})

    fresh = [await ask("", "fresh") for _ in range(2)]
    assert [answer.headers["Kdproxy-Sample"] for answer in fresh] == ["0", "1"]
    assert (await ask("/runs/r", "1")).body == fresh[1].body
    assert [(await ask("/runs/r", "fresh")).headers["Kdproxy-Sample"] for _ in range(2)] == ["2", "3"]
    assert (await ask("/runs/r", "collapse")).body == fresh[0].body
    assert teacher.count() == 4
    refused = await ask("", "first")
    assert (refused.status, teacher.count()) == (400, 4)


async def test_what_was_delivered_and_not_stored_is_used_and_bought_by_the_next_attempt(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    unended = b'data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    teacher.script(
        Respond(status=200, body=unended + b"data: [DONE]\n\n", headers={"Content-Type": "text/event-stream"})
    )
    first = [await send(proxy.address + chat("/runs/r/attempts/a"), STREAM) for _ in range(2)]
    assert [answer.headers["Kdproxy-Sample"] for answer in first] == ["0", "1"]
    assert first[0].body.startswith(unended)
    again = [await send(proxy.address + chat("/runs/r/attempts/b"), STREAM) for _ in range(2)]
    assert again[0].body != first[0].body
    assert again[1].body == first[1].body
    assert teacher.count() == 3


async def test_a_refresh_takes_the_next_ordinal_and_replaces_its_sample(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    async def attempt(name: str, *headers: dict[str, str]) -> list[Any]:
        return [await send(proxy.address + chat(f"/runs/r/attempts/{name}"), ASK, headers=each) for each in headers]

    first = await attempt("a", {}, {})
    new = await attempt("b", {"Cache-Control": "no-cache"}, {})
    later = await attempt("c", {}, {})
    assert new[0].body not in {answer.body for answer in first}
    assert new[1].body == first[1].body
    assert [answer.body for answer in later] == [answer.body for answer in new]
    assert teacher.count() == 3


async def test_a_replay_that_finds_no_sample_leaves_its_ordinal_free(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    missing = await send(proxy.address + chat("/runs/r"), ASK, headers={"Kdproxy-Mode": "replay"})
    assert (missing.status, teacher.count()) == (504, 0)
    assert (await send(proxy.address + chat("/runs/r"), ASK)).headers["Kdproxy-Sample"] == "0"


@pytest.mark.parametrize("place", ["", "/runs/r"])
async def test_a_fresh_sample_that_failed_is_the_next_fresh_one(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, place: str
) -> None:
    async def fresh() -> Any:
        return await send(proxy.address + chat(place), ASK, headers={"Kdproxy-Sample": "fresh"})

    teacher.script(ServerError(400))
    assert (await fresh()).status == 400
    assert [(await fresh()).headers["Kdproxy-Sample"] for _ in range(2)] == ["0", "1"]
    at_once = await asyncio.gather(*(fresh() for _ in range(4)))
    assert sorted(answer.headers["Kdproxy-Sample"] for answer in at_once) == ["2", "3", "4", "5"]


@pytest.mark.parametrize("place", ["", "/runs/r"])
async def test_what_bypasses_the_cache_is_no_sample(proxy: RunningProxy, send: Any, place: str) -> None:
    """A client that keeps the ordinal of a reply must not find another answer there."""
    passed = {"Cache-Control": "no-store", "Kdproxy-Sample": "0"}
    got = await send(proxy.address + chat(place), ASK, headers=passed)
    assert "Kdproxy-Sample" not in got.headers


@pytest.mark.parametrize(
    "place", ["/runs//attempts/x", "/runs/a b", "/runs/r/attempts/", "/runs/.r", "/runs/" + "x" * 129]
)
async def test_a_bad_name_is_refused_with_a_hint(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, place: str
) -> None:
    refused = await send(proxy.address + chat(place).replace(" ", "%20"), ASK)
    assert refused.status == 400
    assert b"characters" in refused.body
    assert teacher.count() == 0


async def test_the_proxys_own_paths_below_a_run_reach_no_upstream(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    for path in ("/_kdproxy/healthz", "/%5fkdproxy/healthz", "/_kdproxy"):
        assert (await send(f"{proxy.address}/runs/r{path}")).status == 404
    assert teacher.count() == 0


async def test_without_a_run_the_classic_cache_holds(tmp_path: Path, teacher: ScriptedTeacher, send: Any) -> None:
    async with run_proxy(teacher, data_dir=tmp_path / "data") as proxy:
        got = [await send(proxy.address + chat(), ASK) for _ in range(3)]
    assert len({answer.body for answer in got}) == 1
    assert "Kdproxy-Sample" not in got[0].headers
