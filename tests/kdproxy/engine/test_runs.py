"""Runs of one process: who waits for a sample to be returned, and who uses which name."""

import asyncio
from typing import Any

import pytest

from kdproxy.core.run_ref import RunRef
from kdproxy.core.sampling import NEXT
from kdproxy.engine import runs as engine
from kdproxy.errors import KdproxyError
from tests.kdproxy.engine.run_script import KEY, RUN, Log, Script

pytestmark = pytest.mark.asyncio


async def _retried(script: Script) -> "asyncio.Task[Any]":
    """Ask as a client does that asks again, and return once it waits for its former connection."""
    attempt = await script.runs.attempt(RUN)
    asking = asyncio.create_task(attempt.hold(KEY, "", NEXT, is_retry=True, stored=None))
    async with asyncio.timeout(5):
        while not attempt._waiting:
            await asyncio.sleep(0)
    return asking


@pytest.mark.parametrize(("is_delivered", "ordinal"), [(True, 1), (False, 0)])
async def test_a_retry_waits_until_its_sample_is_returned_or_used(
    monkeypatch: pytest.MonkeyPatch, is_delivered: bool, ordinal: int
) -> None:
    monkeypatch.setattr(engine, "RETURN_SECONDS", 60)
    script = Script(Log())
    former = await script.hold()
    retry = await _retried(script)
    if is_delivered:  # to another client: nothing will be returned
        former.use()
        former.delivered()
    former.close()
    async with asyncio.timeout(5):
        assert (await retry).ordinal == ordinal
    assert not (await script.runs.attempt(RUN))._waiting


async def test_a_retry_whose_wait_was_over_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RETURN_SECONDS", 0.001)
    script = Script(Log())
    former = await script.hold()
    retried = await (await _retried(script))
    for hold in (former, retried):
        hold.use()
        hold.delivered()
        hold.close()
    assert not (await script.runs.attempt(RUN))._waiting


async def test_clients_that_use_the_old_name_stay_with_their_run() -> None:
    script = Script(Log())
    assert [await script.ask(), await script.ask()] == [0, 1]
    cursor = await script.cursor()
    await script.runs.rename("r", "renamed")
    assert await script.ask() == 2
    assert (await script.cursor())["counted"] == 3
    await script.restore(cursor)
    assert await script.ask() == 2
    assert await script.ask(ref=RunRef("r", "two")) == 0
    assert [run.label for run in script.log.runs().runs.values()] == ["renamed"], "a second run was opened"
    script.restart()
    assert await script.ask() == 0, "after a restart the old name is a new run"
    assert await script.ask(ref=RunRef("renamed", "two")) == 1


async def test_no_other_run_gets_a_name_that_clients_still_use() -> None:
    script = Script(Log())
    await script.ask()
    await script.ask(ref=RunRef("other"))
    await script.runs.rename("r", "renamed")
    with pytest.raises(KdproxyError) as error:
        await script.runs.rename("other", "r")
    assert error.value.code == "run_name_in_use"
    await script.runs.rename("renamed", "r")
    await script.runs.rename("r", "renamed")
    script.restart()
    await script.runs.rename("other", "r")
    assert await script.ask() == 1
