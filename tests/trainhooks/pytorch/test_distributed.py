"""Ranks over real gloo between real processes."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from trainhooks.core.ranks import Alone
from trainhooks.errors import ConfigInvalid
from trainhooks.host.launch import Launch, launched
from trainhooks.pytorch.distributed import connect

JOB = Path(__file__).with_name("job_ranks.py")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_two_ranks_learn_the_same(zygote: Any, tmp_path: Path) -> None:
    rendezvous = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    jobs = [
        zygote.run(JOB, output=tmp_path / f"out-{rank}", env={**rendezvous, "RANK": str(rank)}) for rank in range(2)
    ]
    assert [job.wait() for job in jobs] == [0, 0], jobs[0].said() + jobs[1].said()
    said = [json.loads(job.said().splitlines()[-1]) for job in jobs]
    for shared, nothing, is_ok, learnt, written, _ in said:
        assert shared == "from 0"
        assert nothing == ""
        assert is_ok == [False, True]
        assert learnt[:4] == [0, 0, 2, 1], "what was handed in a call ago, and the largest of it"
        assert learnt[4:] == [0] * 6
        assert written == [True, True, True, False, True, True]


def test_alone_acts_at_once() -> None:
    ranks = Alone()
    assert [ranks.exchange(wish) for wish in (0, 2, 1)] == [0, 2, 1]
    assert [ranks.all_ok(False), ranks.all_ok(True)] == [False, True]


def test_the_launcher_says_who_this_is() -> None:
    assert launched({"RANK": "3", "WORLD_SIZE": "8"}) == Launch(rank=3, world=8)
    assert launched({}) == Launch(rank=0, world=1)


def test_several_ranks_that_are_not_connected_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigInvalid, match="rank 1 of 2"):
        connect()
