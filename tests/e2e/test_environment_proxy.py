"""`use_environment_proxy`: HTTP_PROXY and NO_PROXY are obeyed, and nothing else of the environment is."""

from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def test_what_a_netrc_says_goes_nowhere(
    teacher: ScriptedTeacher, send: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client_key: str
) -> None:
    """Its `default` names every host; there it would stand beside the client's key, or in its place."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password of-another-place\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with run_proxy(teacher, use_environment_proxy=True) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200
        headers = {"Authorization": "", "x-api-key": client_key, "anthropic-version": "2023-06-01"}
        assert (await send(proxy.address + "/v1/messages", {**ASK, "max_tokens": 9}, headers=headers)).status == 200
    chat, messages = teacher.calls
    assert chat.headers["Authorization"] == f"Bearer {client_key}"
    assert messages.headers.getall("Authorization") == [""]


async def test_the_proxy_of_the_environment_is_asked(
    teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", teacher.root_url)
    async with run_proxy("http://teacher.invalid/v1", use_environment_proxy=True) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200
    assert teacher.calls[0].headers["Host"] == "teacher.invalid"


async def test_no_proxy_is_obeyed(teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with run_proxy(teacher, use_environment_proxy=True) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200


async def test_unasked_the_environment_changes_nothing(
    teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    async with run_proxy(teacher) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200
