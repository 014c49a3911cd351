"""`kdproxy scrub` as a user runs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from kdproxy.core.line import seal
from kdproxy.storage.directory import DataDirectory

Say = Callable[..., Any]


def line(request: dict[str, Any]) -> bytes:
    members = {
        "v": 1,
        "kind": "answer",
        "namespace": "default",
        "key": "a" * 64,
        "ordinal": 0,
        "form": "json",
        "prompt_hash": None,
        "upstream": "openai",
        "provider": "openai",
        "endpoint": "embeddings",
        "model": "m",
        "method": "POST",
        "path": "/v1/embeddings",
        "query": "",
        "request_headers": [],
        "request": request,
        "status": 200,
        "headers": [],
        "stream_options": None,
        "usage": None,
        "cost_usd": None,
        "response_id": None,
        "created_at": 1.0,
        "elapsed_seconds": None,
        "body": "{}",
    }
    return seal(orjson.dumps(members))


def test_scrub_says_where_credentials_stand_and_takes_them_out(say: Say, tmp_path: Path) -> None:
    data = tmp_path / "kdproxy-data"
    DataDirectory.open(data, command="test").close()
    journal = data / "api_recovery.jsonl"
    journal.write_bytes(line({"model": "m", "input": "x", "api_key": "canary"}) + line({"model": "m", "input": "y"}))

    looked = say("scrub", "--dry-run")
    assert (looked.code, looked.out) == (1, b"api_recovery.jsonl: 1 of 2 lines\n")
    assert "would be scrubbed" in looked.err
    assert b"canary" in journal.read_bytes()

    done = say("scrub", "--json")
    assert (done.code, done.json["scrubbed"], done.json["is_dry_run"]) == (0, 1, False)
    assert "replace them at the provider" in done.err
    assert b"canary" not in journal.read_bytes()
    assert say("verify").code == 0

    again = say("scrub", "--dry-run")
    assert (again.code, again.out) == (0, b"")
    assert "no stored request contains a credential" in again.err


def test_scrub_makes_no_directory(say: Say, tmp_path: Path) -> None:
    assert say("scrub").code == 1
    assert not (tmp_path / "kdproxy-data").exists()
