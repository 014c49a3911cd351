"""Any interleaving of asking, delivering, leaving and errors: each sample is bought once and delivered once."""

import asyncio
from collections import Counter
from random import Random
from typing import Any

import aiohttp
import pytest

from kdproxy.testing.proxy import RunningProxy
from kdproxy.testing.teacher import ScriptedTeacher, ServerError

pytestmark = pytest.mark.asyncio

PROMPTS, CLIENTS, ASKS = 3, 24, 12


def body(rng: Random) -> dict[str, Any]:
    prompt = rng.randrange(PROMPTS)
    # The form belongs to the prompt: a sample that is stored in one form is bought once more in another.
    return {"model": "m", "stream": prompt == 0, "messages": [{"role": "user", "content": f"Question {prompt}"}]}


async def caller(rng: Random, http: aiohttp.ClientSession, url: str, got: Counter[tuple[str, int]]) -> None:
    """Ask several times; leave at random moments, say that it is a retry after leaving, ask again after an error."""
    retries = 0
    for _ in range(ASKS):
        asked = body(rng)
        headers = {"Authorization": "Bearer x", "x-stainless-retry-count": str(retries)}
        patience = rng.choice((0.01, 0.03, 5.0, 5.0, 5.0))
        try:
            async with asyncio.timeout(patience), http.post(url, json=asked, headers=headers) as response:
                await response.read()
                if response.status == 200:
                    got[asked["messages"][0]["content"], int(response.headers["Kdproxy-Sample"])] += 1
            retries = 0
        except TimeoutError:
            retries = rng.randrange(2)


@pytest.mark.parametrize("seed", range(4))
async def test_each_sample_is_bought_once_and_delivered_once(
    teacher: ScriptedTeacher,
    proxy: RunningProxy,
    http: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
    seed: int,
) -> None:
    rng = Random(seed)
    teacher.latency_seconds = 0.02
    teacher.script(*(ServerError(400) for _ in range(10)))
    url = f"{proxy.address}/runs/r/attempts/a/v1/chat/completions"
    got: Counter[tuple[str, int]] = Counter()
    await asyncio.gather(*(caller(Random(rng.random()), http, url, got) for _ in range(CLIENTS)))
    assert set(got.values()) == {1}
    # Ask until nothing that was given back is left, and a new sample comes.
    for prompt in range(PROMPTS):
        asked = {**body(Random(0)), "messages": [{"role": "user", "content": f"Question {prompt}"}]}
        asked["stream"] = prompt == 0
        while True:
            answer = await http.post(url, json=asked, headers={"Authorization": "Bearer x"})
            await answer.read()
            ordinal = int(answer.headers["Kdproxy-Sample"])
            assert got[f"Question {prompt}", ordinal] == 0
            got[f"Question {prompt}", ordinal] += 1
            is_new = ordinal > max(o for name, o in got if name == f"Question {prompt}" and o != ordinal)
            if is_new and "fwd=miss" in answer.headers["Cache-Status"]:
                break
    tops = [max(ordinal for name, ordinal in got if name == f"Question {prompt}") for prompt in range(PROMPTS)]
    assert teacher.count() - 10 == sum(top + 1 for top in tops)
    # Who leaves right after the last byte was written has its sample used and unread.
    unread = [(prompt, o) for prompt, top in enumerate(tops) for o in range(top) if not got[f"Question {prompt}", o]]
    assert len(unread) <= CLIENTS
    assert "crashed" not in caplog.text
