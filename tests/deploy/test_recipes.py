"""The recipes as they are typed, in a fresh clone: no answer, no secret and no config ends up in the checkout."""

import asyncio
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdproxy.settings import load
from kdproxy.settings.place import checkout_of, usual_data_directory
from kdproxy.testing.proxy import run_proxy, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher
from tests.checkout import Checkout, make_checkout

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PAGE = (DEPLOY / "README.md").read_text(encoding="utf-8")
CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return make_checkout(tmp_path)


def blocks(heading: str) -> list[str]:
    """Return the shell blocks under a heading of the page."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## )", PAGE, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^```sh\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


def test_tokens_and_keys_lie_outside_of_the_checkout(checkout: Checkout, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    # This test is nobody's root: sudo runs what follows, and /etc is a directory of the test.
    (checkout.bin / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (checkout.bin / "sudo").chmod(0o755)
    for block in blocks("Tokens and keys"):
        done = checkout.sh(block.replace("/etc/kdproxy", str(etc)), {"OPENAI_API_KEY": "sk-of-the-test"})
        assert done.returncode == 0, done.stderr
    secret = [checkout.home / ".config" / "kdproxy" / "token", etc / "token", etc / "upstream.env"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in secret] == [0o600] * 3
    assert secret[2].read_text() == "OPENAI_API_KEY=sk-of-the-test\n"
    for token in secret[:2]:
        loaded = load({}, environment={"KDPROXY_TOKEN_FILE": str(token)}, config=etc / "kdproxy.toml")
        assert loaded.settings.token is not None
    assert checkout.git("status", "--porcelain", "--ignored").split() == ["!!", ".venv/"], "nothing was put here"


def test_no_recipe_names_a_place_in_the_checkout() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    service = compose["services"]["kdproxy"]
    mounted = [mount.split(":/")[0] for mount in service["volumes"] if not mount.startswith("data:")]
    read = [*mounted, compose["secrets"]["kdproxy_token"]["file"], *(each["path"] for each in service["env_file"])]
    assert len(read) == 3
    assert [place for place in read if not place.startswith("${KDPROXY_ETC:-/etc/kdproxy}/")] == []
    # Each place that a command of the page is told to write, or to keep data in.
    written = re.findall(r"(?<!\d)>\s*([^\s|)&]+)|--data-dir\s+(\S+)|--volume\s+([^\s:]+)", PAGE)
    places = [next(filter(None, found)).strip('"') for found in written]
    assert len(places) >= 3
    assert [place for place in places if not re.match(r"/|~/|\$HOME/|\$SCRATCH/|kdproxy-data$", place)] == []


def test_a_secret_in_the_checkout_is_not_committed_all_the_same(checkout: Checkout) -> None:
    for name in ("secrets/token", "deploy/secrets/kdproxy_token", "upstream.env", ".env", "my.token", "kdproxy.toml"):
        path = checkout.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("canary")
    checkout.git("add", "--all")
    assert checkout.git("status", "--porcelain") == ""


@pytest.mark.asyncio
async def test_git_clean_deletes_nothing_that_was_paid_for(
    checkout: Checkout, teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kdproxy serve` in a fresh clone, by default; then the checkout is cleaned, and the answer is still a hit."""
    monkeypatch.chdir(checkout.path)
    monkeypatch.setenv("HOME", str(checkout.home))
    data = usual_data_directory()
    for count in (1, 2):
        async with run_proxy_process(teacher, data) as proxy:
            got = await send(proxy.address + CHAT, ASK)
            proxy.process.terminate()
            assert await proxy.wait() == 0
            said = (await proxy.output())[1]
        assert got.status == 200
        assert ("hit" in got.cache) is (count == 2)
        assert "git clean" not in said
        checkout.git("clean", "-xdff")
    assert not checkout.bin.exists(), "it was cleaned"
    assert teacher.count() == 1


@pytest.mark.asyncio
async def test_a_data_directory_in_a_checkout_is_used_and_warned_about(
    checkout: Checkout, teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is where earlier releases kept the answers: who has one there must not buy them again."""
    monkeypatch.chdir(checkout.path)
    monkeypatch.setenv("HOME", str(checkout.home))
    (checkout.path / "kdproxy-data").mkdir()
    assert load({}, environment={}).settings.data_dir == Path("kdproxy-data")
    async with run_proxy_process(teacher, Path("kdproxy-data")) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200
        proxy.process.terminate()
        assert await proxy.wait() == 0
        said = (await proxy.output())[1]
    assert f"lies in the git checkout {checkout.path}" in said
    assert "deletes what was paid for" in said


def test_a_home_that_is_kept_in_git_is_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    (tmp_path / ".git").mkdir()
    (tmp_path / "work" / ".git").mkdir(parents=True)
    assert usual_data_directory() == tmp_path / "kdproxy-data"
    assert checkout_of(tmp_path / "kdproxy-data") is None
    assert checkout_of(tmp_path / "work" / "a" / "b") == tmp_path / "work"


@pytest.mark.asyncio
async def test_a_service_of_the_same_network_is_served_by_name(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    """What compose.yaml sets lets `http://kdproxy:8400` in; another name stays out (a page that rebinds its name)."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    ((name, service),) = compose["services"].items()
    given = dict(each.split("=", 1) for each in service["environment"])
    environment = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in given.items()}
    async with run_proxy(teacher, data_dir=tmp_path / "data", environment=environment) as proxy:
        statuses = [
            (await send(proxy.address + CHAT, ASK, headers={"Host": host})).status
            for host in (f"{name}:8400", "elsewhere.example:8400")
        ]
    assert statuses == [200, 421]


async def run(script: str, *arguments: str | Path, checkout: Checkout) -> tuple[int, str]:
    """Run a script of deploy/ while a proxy runs in this test's loop."""
    command = " ".join(["sh", f"deploy/{script}", *map(str, arguments)])
    done = await asyncio.to_thread(checkout.sh, command)
    return done.returncode, done.stderr


@pytest.mark.asyncio
async def test_a_lost_disk_costs_nothing(
    teacher: ScriptedTeacher, checkout: Checkout, send: Any, tmp_path: Path
) -> None:
    """Back up under a running proxy, lose everything, restore, verify: nothing is bought again."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    asked = [{**ASK, "model": f"m{number}"} for number in range(5)]
    async with run_proxy(teacher, data_dir=data, segment_bytes=4_096) as proxy:
        bought = [(await send(proxy.address + CHAT, each)).body for each in asked]
        code, said = await run("restore_drill.sh", data, checkout=checkout)
        assert (code, "5 answers came back and verify" in said) == (0, True), said
        code, said = await run("backup.sh", data, backup, checkout=checkout)
        assert code == 0, said
    assert len(list(backup.glob("api_recovery.0*.jsonl"))) >= 1, "sealed segments were among it"
    assert (backup / "events.jsonl").read_bytes() == (data / "events.jsonl").read_bytes(), "and the calls"
    shutil.rmtree(data)
    data.mkdir()
    for file in backup.iterdir():
        shutil.copy(file, data)
    done = await asyncio.to_thread(checkout.sh, f"kdproxy verify --data-dir {data}")
    assert done.returncode == 0, done.stderr
    async with run_proxy(teacher, data_dir=data) as proxy:
        assert [(await send(proxy.address + CHAT, each)).body for each in asked] == bought
    assert teacher.count() == 5


@pytest.mark.asyncio
async def test_a_backup_that_cannot_be_relied_on_is_called_so(
    teacher: ScriptedTeacher, checkout: Checkout, send: Any, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with run_proxy(teacher, data_dir=data) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200
        assert (await send(proxy.address + CHAT, {**ASK, "model": "m2"})).status == 200
    journal = data / "api_recovery.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0][:50] + b"#" + lines[0][51:] + lines[1])
    code, said = await run("restore_drill.sh", data, checkout=checkout)
    assert (code, "do not rely on it" in said) == (1, True), said
    assert "The original was not changed" in said
    code, said = await run("backup.sh", tmp_path / "elsewhere", tmp_path / "backup", checkout=checkout)
    assert (code, "is no data directory of kdproxy" in said) == (1, True), said
