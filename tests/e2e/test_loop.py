"""No blocking call on the event loop but the short reads of the index and the journal, which were measured."""

from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from kdproxy.testing.proxy import RunningProxy
from kdproxy.testing.teacher import ErrorEvent, RateLimited, ScriptedTeacher
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio


@pytest.fixture
def blockbuster() -> Iterator[BlockBuster]:
    """Raises on a blocking call from the loop's thread inside kdproxy, reads of stored answers left out."""
    with blockbuster_ctx("kdproxy") as found:
        found.functions["os.read"].can_block_in("kdproxy/storage/journal.py", {"read"})
        found.functions["os.pread"].can_block_in(
            "kdproxy/storage/journal.py", {"read"}
        ) if "os.pread" in found.functions else None
        for name, function in found.functions.items():
            if name.startswith("sqlite3."):
                function.can_block_in("kdproxy/storage/disk.py", {"get"})
        # The record of a call is one write() before its first byte: through a thread it would wait for a running sync.
        found.functions["os.write"].can_block_in("kdproxy/storage/durable.py", {"write_all"})
        yield found


async def test_hits_misses_streams_and_failures_do_not_block(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, blockbuster: BlockBuster
) -> None:
    for number in range(3):
        for body in ({**ASK, "seed": number}, {**ASK, "seed": number, "stream": True}):
            for _ in range(2):
                assert (await send(proxy.address + CHAT, body)).status == 200
    teacher.script(RateLimited(retry_after_ms=1))
    assert (await send(proxy.address + CHAT, {**ASK, "seed": 9})).status == 200
    teacher.script(ErrorEvent(1))
    await send(proxy.address + CHAT, {**ASK, "seed": 10, "stream": True})
    assert (await send(f"{proxy.address}/v1/models")).status == 200
    await send(f"{proxy.address}/v1/files", ASK)
    assert (await send(f"{proxy.address}/v1/models", headers={"Kdproxy-Mode": "replay"})).status == 200
