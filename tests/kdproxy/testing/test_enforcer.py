"""The limits that the teacher enforces, against what they must let through."""

import aiohttp
import pytest

from kdproxy.testing.teacher import Enforcer, ScriptedTeacher
from kdproxy.testing.teacher.window import FixedWindow, SlidingWindow, TokenBucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", [FixedWindow, SlidingWindow, TokenBucket])
def test_a_window_admits_its_limit_and_says_when_more_fits(kind: type) -> None:
    clock = Clock()
    window = kind(limit=10, seconds=60.0, clock=clock)
    for _ in range(10):
        assert window.fits(1)
        window.spend(1)
    assert not window.fits(1)
    assert window.remaining == pytest.approx(0)
    clock.now += window.wait_for(1) - 0.01
    assert not window.fits(1)
    clock.now += 0.02
    assert window.fits(1)


def test_no_minute_of_a_sliding_window_holds_more_than_its_limit() -> None:
    clock, admitted = Clock(), []
    window = SlidingWindow(limit=10, seconds=60.0, clock=clock)
    for step in range(3_000):
        clock.now = step * 0.1
        if window.fits(1):
            window.spend(1)
            admitted.append(clock.now)
    assert all(sum(1 for at in admitted if start <= at < start + 60) <= 10 for start in admitted)
    assert len(admitted) == 50


@pytest.mark.asyncio
@pytest.mark.parametrize("has_headers", [True, False])
async def test_the_teacher_refuses_above_it(has_headers: bool) -> None:
    enforcer = Enforcer(requests_per_window=3, has_headers=has_headers, has_retry_after=has_headers)
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    async with (
        ScriptedTeacher(enforcer=enforcer) as teacher,
        aiohttp.ClientSession(headers={"Authorization": "Bearer x"}) as http,
    ):
        statuses = []
        for _ in range(5):
            async with http.post(f"{teacher.base_url}/chat/completions", json=body) as response:
                statuses.append(response.status)
                assert ("x-ratelimit-remaining-requests" in response.headers) == has_headers
                assert ("retry-after-ms" in response.headers) == (has_headers and response.status == 429)
    assert statuses == [200, 200, 200, 429, 429]
    assert (enforcer.admitted, enforcer.refused) == (3, 2)
