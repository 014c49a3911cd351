"""Samples are exported, warmed, withdrawn and verified one by one: each at its own ordinal."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kdproxy.cli.main import main
from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
OTHER: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Who?"}]}
CHAT = "/v1/chat/completions"
SAMPLES = 12


async def kdproxy(data_dir: Path, *arguments: str | Path) -> Result:
    """Run the command in a thread of this process: it must not block the proxy's event loop."""
    place = ("--data-dir", str(data_dir), "--config", os.devnull)
    done = await asyncio.to_thread(CliRunner().invoke, main, [*map(str, arguments), *place])
    assert done.exit_code == 0, done.stderr
    return done


async def sample(send: Any, proxy: RunningProxy, ordinal: int, ask: dict[str, Any] = ASK) -> Any:
    return await send(proxy.address + CHAT, ask, headers={"Kdproxy-Sample": str(ordinal)})


async def buy(send: Any, proxy: RunningProxy) -> list[bytes]:
    """Buy samples at once, so that they are stored in another order, and return them by ordinal."""
    asked = [send(proxy.address + "/runs/r" + CHAT, body) for _ in range(SAMPLES) for body in (ASK, OTHER)]
    got = await asyncio.gather(*asked)
    mine = sorted((int(answer.headers["Kdproxy-Sample"]), answer.body) for answer in got[::2])
    assert [ordinal for ordinal, _ in mine] == list(range(SAMPLES))
    return [body for _, body in mine]


async def test_an_export_has_every_sample_and_warm_gives_each_back_at_its_ordinal(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    async with run_proxy(teacher, data_dir=tmp_path / "data") as proxy:
        bought = await buy(send, proxy)
        await kdproxy(proxy.data_dir, "export", "--output", tmp_path / "all.jsonl")
    await kdproxy(tmp_path / "new", "warm", tmp_path / "all.jsonl")
    await kdproxy(tmp_path / "new", "verify")
    async with run_proxy(teacher, data_dir=tmp_path / "new", mode="replay") as proxy:
        replayed = [await send(proxy.address + "/runs/s" + CHAT, ASK) for _ in range(SAMPLES)]
        assert [answer.body for answer in replayed] == bought
        assert [(await sample(send, proxy, ordinal)).body for ordinal in range(SAMPLES)] == bought
        assert (await sample(send, proxy, SAMPLES)).status == 504
    assert teacher.count() == 2 * SAMPLES


async def test_training_rows_have_the_samples_of_a_question_in_order(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    bought = await buy(send, proxy)
    rows = [
        json.loads(row) for row in (await kdproxy(proxy.data_dir, "export", "--format", "chat")).stdout.splitlines()
    ]
    assert len(rows) == 2 * SAMPLES
    mine = [row for row in rows if row["messages"][0]["content"] == "Why?"]
    assert [row["ordinal"] for row in mine] == list(range(SAMPLES))
    said = [json.loads(body)["choices"][0]["message"]["content"] for body in bought]
    assert [row["messages"][-1]["content"] for row in mine] == said


async def test_one_sample_or_all_are_withdrawn(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    bought = await buy(send, proxy)
    found = json.loads((await kdproxy(proxy.data_dir, "forget", "--match", "^Why", "--json")).stdout)
    assert sorted(each["ordinal"] for each in found["samples"]) == list(range(SAMPLES))
    key = found["samples"][0]["key"]
    listed = await kdproxy(proxy.data_dir, "forget", "--key", key, "--sample", "3")
    assert listed.stdout.count("sample 3") == 1
    await kdproxy(proxy.data_dir, "forget", "--key", key, "--sample", "3", "--yes")
    await kdproxy(proxy.data_dir, "verify")
    calls = teacher.count()
    again = [(await sample(send, proxy, ordinal)).body for ordinal in range(SAMPLES)]
    assert teacher.count() == calls + 1
    assert [ordinal for ordinal in range(SAMPLES) if again[ordinal] != bought[ordinal]] == [3]
    done = await kdproxy(proxy.data_dir, "forget", "--key", key, "--yes")
    assert f"{SAMPLES} answers withdrawn" in done.stderr
    assert (await sample(send, proxy, 5)).body not in again
    assert teacher.count() == calls + 2


async def test_fresh_looks_once_however_many_samples_are_stored(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bought = await buy(send, proxy)
    await kdproxy(proxy.data_dir, "forget", "--match", "^Why", "--yes")
    archive = proxy.app._directory.archive
    looked: list[int] = []
    get, scan = archive._store.get, archive._store.scan

    def counted_get(name: str) -> bytes | None:
        looked.append(1)
        return get(name)

    def counted_scan(prefix: str) -> Iterator[tuple[str, bytes]]:
        looked.append(2)
        return scan(prefix)

    monkeypatch.setattr(archive._store, "get", counted_get)
    monkeypatch.setattr(archive._store, "scan", counted_scan)
    headers = {"Kdproxy-Sample": "fresh"}
    first = await send(proxy.address + CHAT, OTHER, headers=headers)
    assert first.status == 200, first.body
    assert first.headers["Kdproxy-Sample"] == str(SAMPLES)
    assert looked.count(2) == 1
    assert len(looked) < SAMPLES
    withdrawn = await send(proxy.address + CHAT, ASK, headers=headers)
    assert withdrawn.headers["Kdproxy-Sample"] == "0"
    assert withdrawn.body not in bought
