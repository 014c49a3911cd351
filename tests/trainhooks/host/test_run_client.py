"""The client of a run's cursor, against a real proxy and against one that is away."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from kdproxy.storage.lock import read_owner
from kdproxy.testing.proxy import run_proxy
from kdproxy.testing.teacher import ScriptedTeacher
from trainhooks.core.cursor import Cursor
from trainhooks.errors import ConfigInvalid, RunUnavailable
from trainhooks.host import run_client
from trainhooks.host.run_client import RunClient

CURSOR = b'{"run": "r", "attempt": "a/1", "after": "a/7", "in_flight": 0, "counted": 3}'


class Server(ThreadingHTTPServer):
    """Answers every request with one reply, and counts connections."""

    status, reply = 200, CURSOR
    is_closing = False
    """Whether it closes a connection behind each answer without saying so."""

    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.connections.add(self.client_address)
        self.server.paths.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.reply)))
        self.end_headers()
        self.wfile.write(self.server.reply)
        self.close_connection = self.server.is_closing

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def client_of(server: Server, path: str = "/runs/r/attempts/one") -> RunClient:
    return RunClient(f"http://127.0.0.1:{server.server_port}{path}", "key")


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/runs/r/attempts/one", "/_kdproxy/api/runs/r/cursor?attempt=one"),
        ("/runs/r/attempts/one/v1", "/_kdproxy/api/runs/r/cursor?attempt=one"),
        ("/runs/r", "/_kdproxy/api/runs/r/cursor"),
        ("/_kdproxy/api/runs/r", "/_kdproxy/api/runs/r/cursor"),
        ("/_kdproxy/api/runs/r?attempt=one", "/_kdproxy/api/runs/r/cursor?attempt=one"),
    ],
)
def test_each_form_of_the_url_names_the_run(server: Server, path: str, asked: str) -> None:
    assert client_of(server, path).cursor() == Cursor("a/1", "a/7", 0, 3)
    assert server.paths == [asked]


def test_a_connection_is_kept_and_opened_again_when_it_was_closed(server: Server) -> None:
    client = client_of(server)
    for _ in range(3):
        client.cursor()
    assert len(server.connections) == 1
    server.is_closing = True
    for _ in range(3):
        client.cursor()
    assert len(server.connections) == 3  # the first of them still used the kept one


def test_a_forked_worker_opens_a_connection_of_its_own(server: Server) -> None:
    client = client_of(server)
    client.cursor()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if client.cursor().counted == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    client.cursor()
    assert len(server.connections) == 2


def test_a_run_that_is_not_opened_yet_is_at_its_beginning(server: Server) -> None:
    server.status, server.reply = 404, b'{"error": {"code": "unknown_run", "message": "No run."}}'
    assert client_of(server).cursor() == Cursor()


@pytest.mark.parametrize("reply", [b"", b"[]", b"<html>", b'{"attempt": 1}', b'{"in_flight": "x"}'], ids=repr)
def test_what_is_no_cursor_is_a_clear_error(server: Server, reply: bytes) -> None:
    server.reply = reply
    with pytest.raises(RunUnavailable, match=r"127\.0\.0\.1"):
        client_of(server).cursor()


def test_a_refusal_says_the_proxys_own_words(server: Server) -> None:
    server.status, server.reply = (
        409,
        b'{"error": {"code": "unknown_cursor", "message": "Not in the log"}}',
    )
    with pytest.raises(RunUnavailable, match=r"refuses \(409: Not in the log"):
        client_of(server).restore(Cursor())
    assert len(server.paths) == 1, "a refusal is not asked for again"


def test_a_proxy_that_is_away_is_waited_for_at_a_resume_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as gone:
        client = client_of(gone)
    monkeypatch.setattr(run_client, "START_SECONDS", 0.2)
    with pytest.raises(RunUnavailable, match="cannot be reached"):
        client.cursor()
    with pytest.raises(RunUnavailable, match="Connection refused"):
        client.restore(Cursor())


@pytest.mark.parametrize("url", ["http://127.0.0.1:8400/v1", "127.0.0.1:8400/runs/r", "runs/r", "ftp://h/runs/r"])
def test_a_url_that_names_no_run_is_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid, match="names no run"):
        run_client.of_environment({"KDPROXY_RUN_URL": url, "KDPROXY_TOKEN": "key"})
    with pytest.raises(ConfigInvalid, match="KDPROXY_TOKEN is not"):
        run_client.of_environment({"KDPROXY_RUN_URL": "http://h/runs/r"})


def test_without_the_variables_nothing_is_imported() -> None:
    code = (
        "import sys; from trainhooks.host import run_client; "
        "assert run_client.of_environment({}) is None; "
        "run_client.RunClient('http://127.0.0.1:9/runs/r', 'key'); assert 'http.client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.asyncio
async def test_a_real_proxy_is_read_and_put_back(tmp_path: Path) -> None:
    async with ScriptedTeacher() as teacher, run_proxy(teacher, data_dir=tmp_path / "data") as proxy:
        owner = read_owner(proxy.data_dir)
        assert owner is not None
        client = RunClient(f"{proxy.address}/runs/r/attempts/one", owner.token)
        begin = await asyncio.to_thread(client.cursor)
        assert begin == Cursor()
        assert await asyncio.to_thread(client.restore, begin) == 0
        now = await asyncio.to_thread(client.cursor)
        assert now.attempt is not None
        assert (now.in_flight, now.counted) == (0, 0)
        assert await asyncio.to_thread(client.restore, now) == 0
        with pytest.raises(RunUnavailable, match="401"):
            await asyncio.to_thread(RunClient(f"{proxy.address}/runs/r", "wrong").cursor)
        with pytest.raises(RunUnavailable, match="not in the log of run"):
            await asyncio.to_thread(client.restore, Cursor("f" * 24 + "/1"))
