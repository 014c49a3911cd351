"""api_recovery.jsonl: what a tracker writes, the proxy's own tools read."""

import subprocess
import sys
import threading
from pathlib import Path

import openai
import pytest

from kdproxy.testing.proxy import run_proxy
from kdproxy.testing.teacher import ScriptedTeacher
from trainhooks.storage import atomic
from trainhooks.storage.responses import ResponseLog


def record(log: ResponseLog, prompt: str, response: str, *, system: str | None = None) -> int:
    return log.record(prompt, response, model="gpt-4.1", system=system, source="train.py")


def test_equal_prompts_are_counted_over_attempts(tmp_path: Path) -> None:
    log = ResponseLog(tmp_path)
    assert [record(log, "a", "1"), record(log, "b", "1"), record(log, "a", "2")] == [0, 0, 1]
    assert record(log, "a", "with other words before", system="Be brief.") == 0
    log.close()
    again = ResponseLog(tmp_path)
    assert again.find("a", model="gpt-4.1", system=None, ordinal=1) == "2"
    assert again.find("a", model="gpt-4.1", system=None, ordinal=2) is None
    assert again.find("a", model="another", system=None, ordinal=0) is None
    assert record(again, "a", "3") == 2
    again.close()


def test_a_torn_last_line_is_cut(tmp_path: Path) -> None:
    log = ResponseLog(tmp_path)
    record(log, "a", "1")
    log.close()
    path = tmp_path / "api_recovery.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    again = ResponseLog(tmp_path)
    assert record(again, "a", "2") == 1
    again.close()
    assert path.read_bytes().startswith(whole)
    third = ResponseLog(tmp_path)
    assert [third.find("a", model="gpt-4.1", system=None, ordinal=at) for at in range(3)] == ["1", "2", None]
    third.close()


def test_the_whole_line_behind_a_torn_one_is_read_as_the_proxy_does(tmp_path: Path) -> None:
    log = ResponseLog(tmp_path)
    record(log, "a", "1")
    record(log, "b", "2")
    log.close()
    path = tmp_path / "api_recovery.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first[:50] + second + first)  # two files that were put together, the first one torn
    again = ResponseLog(tmp_path)
    assert [again.find(prompt, model="gpt-4.1", system=None, ordinal=0) for prompt in "ab"] == ["1", "2"]
    assert record(again, "b", "3") == 1
    assert again.find("b", model="gpt-4.1", system=None, ordinal=1) == "3"
    again.close()


def test_an_answer_that_ctrl_c_comes_into_is_kept_and_the_next_lies_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ResponseLog(tmp_path)
    record(log, "a", "1")
    monkeypatch.setattr(atomic, "sync_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        record(log, "b", "interrupted")
    monkeypatch.undo()
    record(log, "c", "3")
    found = [log.find(prompt, model="gpt-4.1", system=None, ordinal=0) for prompt in "abc"]
    log.close()
    assert found == ["1", "interrupted", "3"]


def interrupt(descriptor: int) -> None:
    raise KeyboardInterrupt


def test_answers_that_could_not_be_read_for_once_are_not_cut_off_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ResponseLog(tmp_path)
    record(log, "a", "1")
    log.close()
    again = ResponseLog(tmp_path)
    for module, name in ((Path, "open"), (atomic, "sync_file")):
        monkeypatch.setattr(module, name, refuse)
        with pytest.raises(OSError, match="Too many open files"):
            record(again, "a", "2")
        monkeypatch.undo()
    assert record(again, "a", "2") == 1
    assert again.find("a", model="gpt-4.1", system=None, ordinal=0) == "1"
    again.close()


def refuse(*args: object, **options: object) -> None:
    raise OSError(24, "Too many open files")


def test_threads_lose_and_mix_nothing(tmp_path: Path) -> None:
    log = ResponseLog(tmp_path)
    ordinals: list[int] = []

    def ask(name: str) -> None:
        for _ in range(10):
            ordinals.append(record(log, "same", name * 500))
            record(log, name, name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ordinals) == list(range(40))
    found = [log.find("same", model="gpt-4.1", system=None, ordinal=at) for at in range(40)]
    assert sorted(text[0] for text in found if text) == sorted("abcd" * 10)
    log.close()


async def _ask(proxy_url: str, key: str, prompt: str) -> str | None:
    async with openai.AsyncOpenAI(base_url=proxy_url, api_key=key, max_retries=0) as client:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
        answer = await client.chat.completions.create(model="gpt-4.1", messages=messages)
        return answer.choices[0].message.content


@pytest.mark.asyncio
async def test_the_proxy_takes_the_file_and_serves_from_it(tmp_path: Path) -> None:
    log = ResponseLog(tmp_path)
    record(log, "Why is the sky blue?", "Rayleigh scattering — ünï.", system="Be brief.")
    record(log, "Why is the sky blue?", "A second answer.", system="Be brief.")
    log.close()
    data, written = tmp_path / "data", tmp_path / "api_recovery.jsonl"
    command = [sys.executable, "-m", "kdproxy"]
    subprocess.run([*command, "warm", str(written), "--data-dir", str(data)], check=True)
    async with ScriptedTeacher() as teacher, run_proxy(teacher, data_dir=data) as proxy:
        assert await _ask(proxy.base_url, "any", "Why is the sky blue?") == "Rayleigh scattering — ünï."
        assert teacher.calls == [], "a paid call"
    exported = subprocess.run([*command, "export", "--data-dir", str(data)], check=True, capture_output=True)
    assert sorted(exported.stdout.splitlines()) == sorted(written.read_bytes().splitlines())
