"""The hook of the official clients: which replies name a stored answer, and whose it is."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from kdproxy.core import cache_status
from kdproxy.core.cache_status import Forward
from trainhooks import lineage

KEY, OTHER = "a" * 64, "b" * 64


def reply(status: str, code: int = 200) -> Any:
    return SimpleNamespace(status_code=code, headers={"cache-status": status} if status else {})


@pytest.mark.parametrize(
    ("status", "key"),
    [
        (cache_status.hit(KEY), KEY),
        (cache_status.hit(KEY, detail="collapsed"), KEY),
        (cache_status.forwarded(Forward.MISS, status=200, is_stored=True, key=KEY), KEY),
        (cache_status.forwarded(Forward.MISS, status=200, is_collapsed=True, key=KEY, detail="live"), KEY),
        (cache_status.forwarded(Forward.REQUEST, status=200, is_stored=True, key=KEY), KEY),
        (cache_status.forwarded(Forward.MISS, status=200, key=KEY, detail="not-stored"), KEY),
        (f'edge; hit; key="{OTHER}"; detail="a, b", {cache_status.hit(KEY)}', KEY),
        (f"{cache_status.hit(OTHER)}, {cache_status.hit(KEY)}", KEY),
        (f'edge; hit; key="{OTHER}"', None),
        (f"not{cache_status.hit(KEY)}", None),
        (cache_status.hit(KEY, detail="prompt-match"), None),
        (cache_status.forwarded(Forward.MISS, status=200, key=KEY, detail="incomplete"), None),
        (cache_status.forwarded(Forward.BYPASS, status=200, key=KEY), None),
        (cache_status.forwarded(Forward.METHOD, status=200), None),
        (cache_status.refused("not_stored"), None),
        ("", None),
    ],
)
def test_the_key_of_a_stored_answer(status: str, key: str | None) -> None:
    with lineage.noting() as heard:
        lineage.note(reply(status))
    assert heard == ([] if key is None else [(key, None)])


def test_an_error_is_no_answer() -> None:
    with lineage.noting() as heard:
        lineage.note(reply(cache_status.forwarded(Forward.MISS, status=429, key=KEY), 429))
    assert heard == []


def test_only_what_is_asked_inside_counts() -> None:
    hit = reply(cache_status.hit(KEY))
    lineage.note(hit)
    lineage.listen()
    with lineage.noting() as heard:
        assert heard == []
    lineage.note(hit)
    assert lineage.take() == ((KEY, None),), "a block inside does not end what goes on outside"
    lineage.note(hit)
    assert lineage.take() == ()


def test_another_threads_question_is_nobodys() -> None:
    with lineage.noting() as heard:
        thread = threading.Thread(target=lineage.note, args=(reply(cache_status.hit(KEY)),))
        thread.start()
        thread.join()
    assert heard == []


def test_each_thread_of_a_pool_can_keep_its_own() -> None:
    def ask(key: str) -> list[Any]:
        with lineage.noting() as heard:
            lineage.note(reply(cache_status.hit(key)))
        return heard

    keys = [f"{number:064x}" for number in range(50)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, keys)) == [[(key, None)] for key in keys]


def test_tasks_that_were_started_inside_count() -> None:
    async def ask(key: str) -> None:
        await asyncio.sleep(0)
        await lineage.anote(reply(cache_status.hit(key)))

    async def both() -> list[Any]:
        outside = asyncio.create_task(ask("c" * 64))
        with lineage.noting() as heard:
            await asyncio.gather(ask(KEY), ask(OTHER))
        await outside
        return heard

    assert asyncio.run(both()) == [(KEY, None), (OTHER, None)]
