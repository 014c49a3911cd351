"""`kdproxy runs`: the same words and the same changes beside a running proxy and on a closed directory."""

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from kdproxy.cli.main import main
from kdproxy.testing.proxy import ProxyProcess, RunningProxy, run_proxy, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def runs(data_dir: Path, *arguments: str) -> Ran:
    """Run the command in a thread of this process: it must not block the proxy's event loop."""
    place = ("--data-dir", str(data_dir), "--config", os.devnull)
    done = await asyncio.to_thread(CliRunner().invoke, main, ["runs", *arguments, *place])
    return Ran(done.exit_code, done.stdout, done.stderr)


async def ask(send: Any, proxy: Any, place: str = "/runs/r", **settings: Any) -> int:
    answer = await send(proxy.address + place + CHAT, {**ASK, **settings})
    assert answer.status == 200
    return int(answer.headers["Kdproxy-Sample"])


@asynccontextmanager
async def at_rest_or_at_work(is_running: bool, teacher: ScriptedTeacher, data_dir: Path) -> AsyncIterator[None]:
    """Have the directory owned by a proxy, or by nobody."""
    if is_running:
        async with run_proxy_process(teacher, data_dir):
            yield
    else:
        yield


@pytest.mark.parametrize("is_running", [False, True])
async def test_runs_are_listed_shown_rewound_and_renamed(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any, is_running: bool
) -> None:
    data_dir = tmp_path / "data"
    async with run_proxy(teacher, data_dir=data_dir) as proxy:
        for _ in range(3):
            await ask(send, proxy)
        await ask(send, proxy, "/runs/r/attempts/two/scopes/a")
        await ask(send, proxy, "/runs/other")
    async with at_rest_or_at_work(is_running, teacher, data_dir):
        [first, second] = (await runs(data_dir, "list", "--json")).json["runs"]
        assert (first["run"], first["attempts"], first["used"], first["used_in_last_attempt"]) == ("r", 2, 4, 1)
        assert (second["run"], second["used"]) == ("other", 1)
        shown = (await runs(data_dir, "show", "r", "--json")).json
        assert [(each["attempt"], each["used_by_scope"]) for each in shown["attempts"]] == [
            ("1", {"": 3}),
            ("two", {"a": 1}),
        ]
        assert (shown["bought"]["calls"], shown["bought"]["kept"]) == (4, 4)
        assert shown["bought"]["output_tokens"] > 0
        planned = await runs(data_dir, "rewind", "r", "--attempt", "1", "--last", "2", "--dry-run")
        assert planned.code == 0
        assert "2 samples would be given again, at no cost" in planned.err
        done = (await runs(data_dir, "rewind", "r", "--attempt", "1", "--last", "2", "--json")).json
        assert [sample["ordinal"] for sample in done["samples"]] == [1, 2]
        assert (done["given_back"], done["stored"], done["is_dry_run"]) == (2, 2, False)
        renamed = await runs(data_dir, "rename", "other", "new")
        assert renamed.code == 0, renamed.err
        assert [each["run"] for each in (await runs(data_dir, "list", "--json")).json["runs"]] == ["r", "new"]
    async with run_proxy(teacher, data_dir=data_dir) as proxy:
        # Sample 3 belongs to the scope.
        assert [await ask(send, proxy, "/runs/r/attempts/1") for _ in range(3)] == [1, 2, 4]
        assert await ask(send, proxy, "/runs/new") == 1
    assert teacher.count() == 5  # runs share what is stored


async def test_a_running_attempt_is_rewound_where_it_stands(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    for _ in range(4):
        await ask(send, proxy)
    done = await runs(proxy.data_dir, "rewind", "r", "--last", "2")
    assert done.code == 0, done.err
    assert [await ask(send, proxy) for _ in range(3)] == [2, 3, 4]
    assert teacher.count() == 5


@pytest.mark.parametrize("is_text", [False, True])
async def test_what_was_used_after_a_cursor_is_given_back(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, is_text: bool
) -> None:
    for _ in range(2):
        await ask(send, proxy)
    cursor = await proxy.app._flow._samples.runs.cursor("r", None)
    for _ in range(3):
        await ask(send, proxy)
    to = str(cursor["after"]) if is_text else json.dumps(cursor)
    planned = (await runs(proxy.data_dir, "rewind", "r", "--to", to, "--dry-run", "--json")).json
    assert [sample["ordinal"] for sample in planned["samples"]] == [2, 3, 4]
    assert await ask(send, proxy) == 5
    assert (await runs(proxy.data_dir, "rewind", "r", "--to", to)).code == 0
    assert [await ask(send, proxy) for _ in range(4)] == [2, 3, 4, 5]
    assert teacher.count() == 6


async def test_mistakes_say_what_to_do_and_change_nothing(proxy: RunningProxy, send: Any) -> None:
    await ask(send, proxy, "/runs/gsm8k/attempts/monday")
    before = (proxy.data_dir / "events.jsonl").read_bytes()
    for arguments, words in (
        (("show", "gsm8"), "Did you mean 'gsm8k'?"),
        (("rewind", "gsm8k", "--attempt", "mondy", "--last", "1"), "Did you mean 'monday'?"),
        (("rename", "gsm", "x"), "No run is named 'gsm'"),
        (("rename", "gsm8k", "gsm8k"), "Another run is named 'gsm8k'"),
        (("rename", "gsm8k", "a b"), "characters"),
        (("rewind", "gsm8k", "--to", "nonsense"), "cursor cannot be read"),
        (("rewind", "gsm8k", "--to", "ab" * 12 + "/1"), "not in the log of run"),
    ):
        found = await runs(proxy.data_dir, *arguments)
        assert found.code == 1
        assert words in found.err
    assert (await runs(proxy.data_dir, "rewind", "gsm8k", "--last", "1", "--unread")).code == 2
    assert (proxy.data_dir / "events.jsonl").read_bytes() == before


# -- what a killed client never read ----------------------------------------------------------------------------------


class Killed:
    """A client whose process ends: the kernel resets a connection with unread bytes, and closes the others."""

    def __init__(self, proxy: RunningProxy | ProxyProcess) -> None:
        host, _, port = proxy.address.removeprefix("http://").partition(":")
        self._place = host, int(port)
        self._socket = socket.create_connection(self._place)

    async def ask(self, place: str = "/runs/r") -> None:
        body = json.dumps(ASK).encode()
        head = (
            f"POST {place}{CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer any\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        await asyncio.to_thread(self._socket.sendall, head.encode() + body)

    async def read(self) -> bytes:
        """Read one answer in full."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        found = b""
        while b"\r\n\r\n" not in found:
            found += self._socket.recv(65_536)
        head, _, body = found.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self._socket.recv(65_536)
        return body

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


async def unread(proxy: RunningProxy) -> list[tuple[int, bool]]:
    shown = (await runs(proxy.data_dir, "show", "r", "--quick", "--json")).json
    return [(sample["ordinal"], sample["was_reset"]) for sample in shown["unread"]]


def events(proxy: RunningProxy, kind: str) -> int:
    return (proxy.data_dir / "events.jsonl").read_bytes().count(f'"kind":"{kind}"'.encode())


async def until(condition: Any) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_answer_that_a_killed_client_had_not_read_is_listed_and_given_back(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    assert await ask(send, proxy) == 0
    killed = Killed(proxy)
    await killed.ask()
    await until(lambda: events(proxy, "used") == 2)
    killed.reset()
    await until(lambda: events(proxy, "unread") == 1)
    assert await ask(send, proxy) == 2
    assert await unread(proxy) == [(1, True)]
    done = await runs(proxy.data_dir, "rewind", "r", "--unread")
    assert "1 sample will be given again, at no cost." in done.err
    assert await unread(proxy) == []
    assert [await ask(send, proxy) for _ in range(2)] == [1, 3]


async def test_a_close_right_after_the_delivery_counts_while_the_attempt_is_silent(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    killed = Killed(proxy)
    await killed.ask()
    await killed.read()
    killed.close()
    await until(lambda: events(proxy, "unread") == 1)
    assert await unread(proxy) == [(0, False)]
    assert await ask(send, proxy) == 1
    assert await unread(proxy) == []


async def test_a_client_with_a_connection_for_each_request_has_read_its_answers(
    teacher: ScriptedTeacher, proxy: RunningProxy
) -> None:
    for number in range(4):
        client = Killed(proxy)
        await client.ask()
        await client.read()
        client.close()
        await until(lambda count=number + 1: events(proxy, "used") == count)
    await until(lambda: events(proxy, "unread") == 1)
    assert await unread(proxy) == [(3, False)]


async def test_the_end_of_the_proxy_is_no_killed_client(
    teacher: ScriptedTeacher, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    headers = {"Authorization": "Bearer any", "Content-Type": "application/json"}
    async with (
        run_proxy(teacher, data_dir=tmp_path / "data") as proxy,
        http.post(proxy.address + "/runs/r" + CHAT, data=json.dumps(ASK), headers=headers) as answer,
    ):
        assert answer.status == 200
        await answer.read()
    assert proxy.app._unread._closed == []
    assert events(proxy, "unread") == 0
    assert await unread(proxy) == []


async def test_an_answer_before_the_one_that_a_killed_client_waited_for_was_read(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    killed = Killed(proxy)
    await killed.ask()
    await killed.read()
    teacher.hold()
    await killed.ask()
    await until(lambda: teacher.count() == 2)
    killed.reset()
    await until(lambda: not proxy.app._runner.server.connections)
    teacher.release()
    assert await ask(send, proxy) == 1
    assert await unread(proxy) == []


async def test_an_attempt_is_closed_soon_after_its_client_was_killed(teacher: ScriptedTeacher, tmp_path: Path) -> None:
    async with run_proxy(teacher, data_dir=tmp_path / "data") as proxy:
        killed = Killed(proxy)
        await killed.ask()
        await killed.read()
        killed.close()
        await until(lambda: proxy.app._unread._closed)
    assert await unread(proxy) == [(0, False)]
