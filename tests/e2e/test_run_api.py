"""The API of runs: opening an attempt with a port of its own, who may, and the attempt's bill."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kdproxy.storage.lock import read_owner
from kdproxy.testing.proxy import RunningProxy
from kdproxy.testing.teacher import ScriptedTeacher, ServerError

pytestmark = pytest.mark.asyncio

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
RUNS = "/_kdproxy/api/runs"


class Api:
    """A client of the API, with the lock file's token unless another is given."""

    def __init__(self, address: str, session: aiohttp.ClientSession, token: str) -> None:
        self.address = address
        self._session = session
        self._token = token

    async def __call__(
        self, method: str, path: str, members: Any = None, *, token: str | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        sent = {"Authorization": f"Bearer {token or self._token}", **headers}
        async with self._session.request(method, self.address + path, json=members, headers=sent) as response:
            return response.status, json.loads(await response.read())

    async def open(self, run: str, **members: Any) -> dict[str, Any]:
        status, opened = await self("POST", f"{RUNS}/{run}/attempts", members)
        assert status == 200, opened
        return opened


@pytest_asyncio.fixture
async def api(proxy: RunningProxy) -> AsyncIterator[Api]:
    owner = read_owner(proxy.data_dir)
    assert owner is not None
    async with aiohttp.ClientSession() as session:
        yield Api(proxy.address, session, owner.token)


async def test_every_path_of_an_attempts_port_belongs_to_it(
    teacher: ScriptedTeacher, proxy: RunningProxy, api: Api, send: Any
) -> None:
    first = await api.open("r", port=0)
    assert (first["run"], first["token"]) == ("r", "1")
    paths = ["/v1/chat/completions", "/chat/completions", "/v1/chat/completions"]
    bought = [await send(first["address"] + path, ASK) for path in paths]
    assert [answer.headers["Kdproxy-Sample"] for answer in bought] == ["0", "1", "2"]
    second = await api.open("r", port=0)
    assert second["token"] == "2"
    again = [await send(second["address"] + "/v1/chat/completions", ASK) for _ in range(3)]
    assert [answer.body for answer in again] == [answer.body for answer in bought]
    assert teacher.count() == 3


async def test_an_attempt_that_is_continued_has_its_ordinals(proxy: RunningProxy, api: Api, send: Any) -> None:
    first = await api.open("r", port=0)
    await send(first["address"] + "/v1/chat/completions", ASK)
    busy = await api("POST", f"{RUNS}/r/attempts", {"continue": True})
    assert (busy[0], busy[1]["error"]["code"]) == (409, "attempt_open")
    await api("POST", f"{RUNS}/r/attempts/1/close")
    second = await api.open("r", port=0, **{"continue": True})
    assert second["token"] == "1"
    answer = await send(second["address"] + "/v1/chat/completions", ASK)
    assert answer.headers["Kdproxy-Sample"] == "1"


async def test_the_bill_is_the_attempts_own(teacher: ScriptedTeacher, proxy: RunningProxy, api: Api, send: Any) -> None:
    await send(proxy.base_url + "/chat/completions", ASK)
    opened = await api.open("r", port=0)
    address = opened["address"]
    assert (await api("GET", f"{RUNS}/r/attempts/1"))[1]["was_called"] is False
    await send(address + "/v1/chat/completions", ASK)  # stored before the run
    await send(address + "/v1/chat/completions", ASK)
    teacher.script(*[ServerError(400)])
    await send(address + "/v1/chat/completions", {**ASK, "model": "other"})
    async with aiohttp.ClientSession() as session, session.get(address + "/_kdproxy/healthz") as health:
        assert health.status == 200
    status, bill = await api("POST", f"{RUNS}/r/attempts/1/close")
    assert status == 200
    assert (bill["calls"], bill["hits"], bill["bought"], bill["was_called"]) == (3, 1, 1, True)
    assert bill["input_tokens"] > 0
    with pytest.raises(aiohttp.ClientError):
        await send(address + "/v1/chat/completions", ASK)


async def test_an_attempts_key_opens_its_own_run_only(proxy: RunningProxy, api: Api) -> None:
    mine, other = await api.open("mine", port=0), await api.open("other")
    assert other["address"] is None
    mine_api = Api(mine["address"], api._session, mine["key"])
    assert (await mine_api("GET", f"{RUNS}/mine/attempts/1"))[0] == 200
    for path in (f"{RUNS}/other/attempts/1", RUNS, f"{RUNS}/none/attempts/1"):
        assert (await mine_api("GET", path))[0] == 401
    assert (await mine_api("POST", "/_kdproxy/api/stats", {}))[0] == 401
    await api("POST", f"{RUNS}/mine/attempts/1/close")
    assert (await Api(proxy.address, api._session, mine["key"])("GET", f"{RUNS}/mine/attempts/1"))[0] == 401


@pytest.mark.parametrize(
    ("method", "path", "members", "status", "code"),
    [
        ("POST", "/a%20b/attempts", {}, 400, "bad_run_name"),
        ("POST", "/r/attempts", {"token": "a b"}, 400, "bad_run_name"),
        ("POST", "/r/attempts", {"port": 70_000}, 400, "bad_arguments"),
        ("POST", "/r/attempts", {"port": True}, 400, "bad_arguments"),
        ("POST", "/r/attempts", [], 400, "bad_arguments"),
        ("GET", "/r/attempts", None, 405, "method_not_allowed"),
        ("DELETE", "/r/attempts/1", None, 405, "method_not_allowed"),
        ("POST", "/r/attempts/9/close", {}, 404, "attempt_not_open"),
    ],
)
async def test_what_the_api_refuses(
    proxy: RunningProxy, api: Api, method: str, path: str, members: Any, status: int, code: str
) -> None:
    got, body = await api(method, RUNS + path, members)
    assert (got, body["error"]["code"]) == (status, code)


async def test_browsers_and_strangers_are_refused_first(
    teacher: ScriptedTeacher, proxy: RunningProxy, api: Api
) -> None:
    assert (await api("POST", f"{RUNS}/r/attempts", {}, Origin="http://127.0.0.1"))[0] == 403
    assert (await api("POST", f"{RUNS}/r/attempts", {}, token="guess"))[0] == 401
    assert (await api("POST", f"{RUNS}/r/nonsense", {}, token="guess"))[0] == 404
    assert teacher.count() == 0


async def test_a_port_that_is_taken_opens_nothing(proxy: RunningProxy, api: Api, tmp_path: Path) -> None:
    port = int(proxy.address.rpartition(":")[2])
    status, body = await api("POST", f"{RUNS}/r/attempts", {"port": port})
    assert (status, body["error"]["code"]) == (409, "address_unusable")
    assert (await api("GET", f"{RUNS}/r/attempts/1"))[0] == 404
