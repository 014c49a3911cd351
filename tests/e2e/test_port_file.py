"""`--port-file` and `kdproxy ready`: a script finds its own proxy, and only that."""

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.core.proof import is_proof, proof_of
from kdproxy.storage import port_file
from kdproxy.storage.port_file import Listening
from kdproxy.testing.proxy import run_proxy, run_proxy_process, start_serve
from tests.wire import WireServer, json_answer

pytestmark = pytest.mark.asyncio
UPSTREAM = "http://127.0.0.1:9/v1"


async def ready(path: Path, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kdproxy", "ready", "--port-file", str(path), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HTTP_PROXY": "http://127.0.0.1:9"},
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err
    return process.returncode, out.decode(), err.decode()


async def test_a_proxy_is_found_proved_and_gone_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "port"
    waiting = asyncio.create_task(ready(path, "--wait", "20"))
    async with run_proxy_process(UPSTREAM, tmp_path / "data", "--port-file", str(path)) as proxy:
        code, out, err = await waiting
        assert code == 0, err
        assert out.splitlines()[0] == f"export OPENAI_BASE_URL={proxy.address}/v1"
        assert (await ready(path, "--pid", str(proxy.pid)))[0] == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        found = port_file.read(path)
        assert found is not None
        assert (found.address, found.pid) == (proxy.address, proxy.pid)
        assert found.secret not in out + err
        proxy.send(signal.SIGTERM)
        assert await proxy.wait() == 0
        assert not path.exists()
        out, err = await proxy.output()
        assert found.secret not in out + err
    assert [each.name for each in tmp_path.iterdir()] == ["data"]


async def test_what_a_killed_proxy_left_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "port"
    async with run_proxy_process(UPSTREAM, tmp_path / "data", "--port-file", str(path)) as proxy:
        assert (await ready(path, "--wait", "20"))[0] == 0
        await proxy.kill()
    assert path.exists()
    code, out, err = await ready(path, "--wait", "0.3")
    assert (code, out, "exited" in err) == (1, "", True)
    async with run_proxy_process(UPSTREAM, tmp_path / "data", "--port-file", str(path)) as proxy:
        assert (await ready(path, "--pid", str(proxy.pid)))[0] == 0
        code, out, err = await ready(path, "--pid", str(os.getpid()), "--wait", "0.3")
        assert (code, out, f"belongs to process {proxy.pid}, not {os.getpid()}" in err) == (1, "", True)


async def test_a_stranger_who_took_the_port_has_no_proof(tmp_path: Path, send: Any) -> None:
    """Another proxy, and a server that says anything: neither knows the secret, and neither is sent more than a GET."""
    path = tmp_path / "port"
    plays = [json_answer({"status": "ok"}), json_answer({"status": "ok", "proof": "0" * 64}), json_answer([])]
    async with run_proxy(UPSTREAM) as stranger, WireServer(*([play] for play in plays)) as liar:
        for address in (stranger.address, *[liar.url.removesuffix("/v1")] * len(plays)):
            port = int(address.rsplit(":", 1)[1])
            port_file.write(path, Listening(address=address, port=port, pid=os.getpid(), secret="5" * 32))
            code, out, err = await ready(path, "--wait", "0")
            assert (code, out, "is another proxy" in err) == (1, "", True), err
        assert all(request.raw.startswith(b"GET /_kdproxy/healthz?challenge=") for request in liar.requests)


async def test_a_proof_is_of_one_port_and_one_challenge(tmp_path: Path, send: Any) -> None:
    async with run_proxy(UPSTREAM) as proxy:
        port = int(proxy.address.rsplit(":", 1)[1])
        secret = proxy.app.secret
        got = await send(f"{proxy.address}/_kdproxy/healthz?challenge=0123456789abcdef")
        members = orjson.loads(got.body)
        assert members == {"status": "ok", "proof": proof_of(secret, "0123456789abcdef", port)}
        assert not is_proof(members["proof"], secret, "0123456789abcdef", port + 1)
        assert not is_proof(members["proof"], secret, "1123456789abcdef", port)
        assert not is_proof(None, secret, "0123456789abcdef", port)
        for bad in ("", "short", "x" * 129, "0123456789abcde%20f"):
            got = await send(f"{proxy.address}/_kdproxy/healthz?challenge={bad}")
            assert orjson.loads(got.body) == {"status": "ok"}


async def test_a_proxy_that_cannot_write_its_port_file_says_so_and_serves_nobody(tmp_path: Path) -> None:
    path = tmp_path / "no such folder" / "port"
    process = await start_serve(UPSTREAM, tmp_path / "data", "--port-file", str(path))
    _, err = await process.communicate()
    assert process.returncode == 1
    assert str(path) in err.decode()
    assert "--port-file" in err.decode()


async def test_ready_ends_with_the_proxy_that_it_waits_for(tmp_path: Path) -> None:
    process = await start_serve(UPSTREAM, Path("/proc/none"), "--port-file", str(tmp_path / "port"))
    code, out, err = await ready(tmp_path / "port", "--pid", str(process.pid), "--wait", "20")
    assert (code, out) == (1, "")
    assert f"process {process.pid} exited before it served" in err
    await process.communicate()


@pytest.mark.parametrize(
    "text", ["", "version=2\n", "version=1\nport=x\naddress=a\npid=1\nsecret=s\n", "\xff", "a" * 9000]
)
async def test_what_is_no_port_file_is_not_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "port").write_text(text, encoding="latin-1")
    assert port_file.read(tmp_path / "port") is None


async def test_a_shell_may_source_it(tmp_path: Path) -> None:
    path = tmp_path / "port"
    written = Listening(address="http://[::1]:8400", port=8400, pid=1, secret="ab" * 16)
    port_file.write(path, written)
    assert port_file.read(path) == written
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f'. {path}; echo "$address $port $pid"', stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out == b"http://[::1]:8400 8400 1\n"
