"""Cursors of runs: what is restored, what is refused, and what a moment of an attempt consists of."""

import asyncio

import pytest

from kdproxy.core.run_event import Used
from kdproxy.core.run_ref import RunRef
from kdproxy.core.sampling import Taking
from kdproxy.engine import runs as engine
from kdproxy.errors import KdproxyError
from tests.kdproxy.engine.run_script import OTHER, Log, Script, named

pytestmark = pytest.mark.asyncio


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setattr(engine, "RETURN_SECONDS", 0.01)
    return Script(Log())


@pytest.mark.parametrize("restarts", [False, True])
async def test_an_attempt_is_put_back_to_the_moment_of_its_cursor(script: Script, restarts: bool) -> None:
    assert [await script.ask() for _ in range(3)] == [0, 1, 2]
    cursor = await script.cursor()
    assert [await script.ask(), await script.ask(OTHER)] == [3, 0]
    if restarts:
        script.restart()
    await script.restore(cursor)
    assert [await script.ask(), await script.ask(), await script.ask(OTHER)] == [3, 4, 0]


async def test_a_cursor_is_durable_before_it_is_returned(script: Script) -> None:
    await script.ask()
    cursor = await script.cursor()
    assert script.log.events[script.log.synced - 1][0] == named(cursor["after"])


async def test_a_cursor_that_need_not_be_durable_becomes_so_with_the_next(script: Script) -> None:
    await script.ask()
    early = await script.runs.cursor("r", None, is_durable=False)
    assert script.log.synced == 0
    await script.cursor()
    assert script.log.synced > named(early["after"]).seq


async def test_a_disk_that_refuses_gives_no_cursor_and_restores_none(script: Script) -> None:
    await script.ask()
    cursor = await script.cursor()
    await script.ask()
    script.log.trouble = "No space left on device."
    for refused in (script.cursor(), script.restore(cursor)):
        with pytest.raises(KdproxyError) as error:
            await refused
        assert (error.value.code, error.value.http_status) == ("disk_refuses", 503)
    script.log.trouble = None
    assert await script.ask() == 2, "a refused restore changed the attempt"


async def test_a_cursor_of_an_earlier_attempt_restores_into_a_new_one(script: Script) -> None:
    for _ in range(3):
        await script.ask(ref=RunRef("r", "one"))
    cursor = await script.cursor("one")
    await script.ask(ref=RunRef("r", "one"))
    script.restart()
    restored = await script.restore(cursor, "two")
    assert restored["token"] == "two"
    assert await script.ask(ref=RunRef("r", "two")) == 3
    assert await script.ask(ref=RunRef("r", "one")) == 4, "the earlier attempt is as it was"


async def test_restores_of_restored_attempts_keep_what_each_used(script: Script) -> None:
    cursor = {"attempt": None, "after": None}
    for generation in range(4):
        token = f"t{generation}"
        await script.restore(cursor, token)
        assert [await script.ask(ref=RunRef("r", token)) for _ in range(2)] == [2 * generation, 2 * generation + 1]
        cursor = await script.cursor(token)
        assert await script.ask(ref=RunRef("r", token)) == 2 * generation + 2  # after the checkpoint: lost
        script.restart()


async def test_an_attempt_is_restored_to_the_same_cursor_again_and_again(script: Script) -> None:
    await script.ask()
    cursor = await script.cursor()
    for _ in range(3):
        assert [await script.ask(), await script.ask()] == [1, 2]
        await script.restore(cursor)
        script.restart()
    assert await script.ask() == 1


async def test_a_cursor_from_before_a_restore_still_counts(script: Script) -> None:
    early = await script.ask() or await script.cursor()
    await script.ask()
    late = await script.cursor()
    await script.restore(early)
    await script.restore(late)
    script.restart()
    assert await script.ask() == 2


async def test_a_cursor_of_nothing_begins_at_the_first_sample(script: Script) -> None:
    await script.ask()
    script.restart()
    await script.restore({"attempt": None, "after": None})
    assert await script.ask() == 0
    script.restart()
    assert await script.ask() == 1


@pytest.mark.parametrize(
    ("attempt", "after"),
    [("f" * 16 + "/0", "f" * 16 + "/1"), ("0" * 16 + "/0", "0" * 16 + "/999"), ("0" * 16 + "/999", None)],
    ids=["another data directory", "an event that is lost", "another run's attempt"],
)
async def test_an_unknown_cursor_is_refused_and_nothing_is_changed(
    script: Script, attempt: str, after: str | None
) -> None:
    await script.ask()
    before = list(script.log.events)
    with pytest.raises(KdproxyError) as error:
        await script.restore({"attempt": attempt, "after": after}, "new")
    assert error.value.code == "unknown_cursor"
    assert script.log.events == before
    assert await script.ask() == 1


async def test_a_cursor_of_another_run_is_refused(script: Script) -> None:
    await script.ask()
    await script.ask(ref=RunRef("other"))
    cursor = await script.runs.cursor("other", None)
    with pytest.raises(KdproxyError, match="not in the log of run"):
        await script.restore(cursor)


async def test_a_run_or_an_attempt_that_is_not_known_has_no_cursor(script: Script) -> None:
    with pytest.raises(KdproxyError) as error:
        await script.cursor()
    assert error.value.code == "unknown_run"
    await script.ask()
    with pytest.raises(KdproxyError) as error:
        await script.cursor("never")
    assert error.value.code == "unknown_attempt"
    assert len(script.log.events) == 2, "asking for a cursor opened something"


async def test_requests_in_flight_are_counted_unless_they_name_their_sample(script: Script) -> None:
    counted, named_ = await script.hold(), await script.hold(taking=Taking(ordinal=7))
    cursor = await script.cursor()
    assert (cursor["in_flight"], cursor["counted"]) == (1, 0)
    counted.use()
    assert (await script.cursor())["counted"] == 1
    named_.use()
    for hold in (counted, named_):
        hold.delivered()
        hold.close()
    cursor = await script.cursor()
    assert (cursor["in_flight"], cursor["counted"]) == (0, 1)
    script.restart()
    assert (await script.cursor())["counted"] == 1, "what was named is in the log"


async def test_a_restore_waits_for_connections_of_the_former_process(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "RETURN_SECONDS", 10)
    await script.ask()
    cursor = await script.cursor()
    hold = await script.hold()
    restoring = asyncio.create_task(script.restore(cursor))
    attempt = await script.runs.attempt(RunRef("r"))
    async with asyncio.timeout(5):
        while not attempt._all_released:
            await asyncio.sleep(0)
    hold.close()
    assert (await restoring)["in_flight"] == 0
    assert await script.ask() == 1


async def test_samples_that_clients_hold_stay_theirs(script: Script) -> None:
    await script.ask()
    cursor = await script.cursor()
    hold = await script.hold()
    assert (await script.restore(cursor))["in_flight"] == 1
    assert await script.ask() == 2
    hold.use()
    hold.delivered()
    hold.close()
    script.restart()
    assert [await script.ask() for _ in range(2)] == [3, 4]


async def test_a_use_from_before_a_restore_is_not_taken_back_twice(script: Script) -> None:
    await script.ask()
    cursor = await script.cursor()
    cut = await script.hold()
    cut.use()
    await script.restore(cursor)
    assert await script.ask(taking=Taking(ordinal=1)) == 1
    cut.close()  # its last byte could not be written
    assert await script.ask() == 2, "sample 1 was given a second time"
    script.restart()
    assert await script.ask() == 3


async def test_scopes_keep_their_samples_through_a_restore(script: Script) -> None:
    one, two = RunRef("r", None, "one"), RunRef("r", None, "two")
    assert [await script.ask(ref=one), await script.ask(ref=two), await script.ask(ref=one)] == [0, 1, 2]
    cursor = await script.cursor()
    assert [await script.ask(ref=two), await script.ask(ref=one)] == [3, 4]
    await script.restore(cursor)
    assert [await script.ask(ref=one), await script.ask(ref=two)] == [4, 3]


async def test_an_attempt_that_is_looked_at_while_it_is_opened_is_opened_once(script: Script) -> None:
    assert [await script.ask() for _ in range(3)] == [0, 1, 2]
    for _ in range(20):
        script.restart()
        *holds, _ = await asyncio.gather(*(script.hold() for _ in range(4)), script.cursor())
        assert (await script.cursor())["in_flight"] == 4, "the cursor is of another object than the requests"
        holds += [await script.hold()]
        assert len({hold.ordinal for hold in holds}) == 5, "two clients got one sample"
        for hold in holds:
            hold.close()


async def test_a_restored_attempt_whose_source_is_lost_is_refused_not_guessed(script: Script) -> None:
    await script.ask(ref=RunRef("r", "one"))
    cursor = await script.cursor("one")
    await script.restore(cursor, "two")
    script.log.events = [each for each in script.log.events if not isinstance(each[1], Used)]
    script.restart()
    with pytest.raises(KdproxyError) as error:
        await script.ask(ref=RunRef("r", "two"))
    assert error.value.code == "broken_history"
    assert await script.ask(ref=RunRef("r", "three")) == 0
