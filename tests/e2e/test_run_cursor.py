"""The API of cursors over HTTP: `GET` and `POST /_kdproxy/api/runs/NAME/cursor`."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kdproxy.storage.lock import read_owner
from kdproxy.testing.proxy import RunningProxy, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
RUNS = "/_kdproxy/api/runs"


class Api:
    """A client of one proxy."""

    def __init__(self, session: aiohttp.ClientSession, address: str, data_dir: Path) -> None:
        owner = read_owner(data_dir)
        assert owner is not None
        self._session, self.address, self._token = session, address, owner.token

    async def __call__(self, method: str, path: str, members: Any = None, token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token or self._token}"}
        async with self._session.request(method, self.address + RUNS + path, json=members, headers=headers) as response:
            return response.status, json.loads(await response.read())

    async def ask(self, send: Any, place: str = "/runs/r") -> int:
        answer = await send(f"{self.address}{place}/v1/chat/completions", ASK)
        assert answer.status == 200
        return int(answer.headers["Kdproxy-Sample"])


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def api(proxy: RunningProxy, session: aiohttp.ClientSession) -> Api:
    return Api(session, proxy.address, proxy.data_dir)


async def test_the_same_json_is_read_and_posted(teacher: ScriptedTeacher, api: Api, send: Any) -> None:
    assert [await api.ask(send) for _ in range(2)] == [0, 1]
    status, cursor = await api("GET", "/r/cursor")
    assert status == 200
    assert (cursor["run"], cursor["in_flight"], cursor["counted"]) == ("r", 0, 2)
    assert [await api.ask(send) for _ in range(2)] == [2, 3]
    status, restored = await api("POST", "/r/cursor", cursor)
    assert (status, restored["in_flight"]) == (200, 0)
    assert [await api.ask(send) for _ in range(3)] == [2, 3, 4]
    assert teacher.count() == 5


async def test_a_cursor_survives_kills_of_the_proxy(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any, session: aiohttp.ClientSession
) -> None:
    async with run_proxy_process(teacher, tmp_path / "data") as running:
        api = Api(session, running.address, running.data_dir)
        await api.ask(send, "/runs/r/attempts/one")
        _, cursor = await api("GET", "/r/cursor?attempt=one")
        await api.ask(send, "/runs/r/attempts/one")
        await running.kill()
    async with run_proxy_process(teacher, tmp_path / "data") as running:
        api = Api(session, running.address, running.data_dir)
        status, restored = await api("POST", "/r/cursor?attempt=two", cursor)
        assert (status, restored["token"]) == (200, "two")
        assert await api.ask(send, "/runs/r/attempts/two") == 1
        await running.kill()
    async with run_proxy_process(teacher, tmp_path / "data") as running:
        api = Api(session, running.address, running.data_dir)
        assert await api.ask(send, "/runs/r/attempts/two") == 2
    assert teacher.count() == 3


async def test_an_attempts_own_key_means_that_attempt(api: Api, send: Any) -> None:
    _, first = await api("POST", "/r/attempts", {"port": 0})
    _, second = await api("POST", "/r/attempts", {"port": 0})
    await send(first["address"] + "/v1/chat/completions", ASK)
    _, cursor = await api("GET", "/r/cursor", token=first["key"])
    assert (cursor["attempt"], cursor["counted"]) == (first["attempt"], 1)
    _, cursor = await api("GET", "/r/cursor", token=second["key"])
    assert (cursor["attempt"], cursor["counted"]) == (second["attempt"], 0)
    status, _ = await api("GET", "/other/cursor", token=first["key"])
    assert status == 401


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"attempt": "x", "after": None}, 400, "bad_arguments"),
        ({"attempt": None, "after": "a1b2c3d4a1b2c3d4a1b2c3d4/1"}, 400, "bad_arguments"),
        ({"attempt": None}, 400, "bad_arguments"),
        ({"attempt": 1, "after": None}, 400, "bad_arguments"),
        ({"attempt": "a1b2c3d4a1b2c3d4a1b2c3d4/1", "after": None}, 409, "unknown_cursor"),
    ],
    ids=str,
)
async def test_what_is_no_cursor_of_the_run_is_refused(
    api: Api, send: Any, members: Any, status: int, code: str
) -> None:
    await api.ask(send)
    refused, reply = await api("POST", "/r/cursor", members)
    assert (refused, reply["error"]["code"]) == (status, code)
    assert await api.ask(send) == 1


async def test_a_run_that_is_not_known_has_no_cursor(api: Api) -> None:
    status, reply = await api("GET", "/never/cursor")
    assert (status, reply["error"]["code"]) == (404, "unknown_run")
