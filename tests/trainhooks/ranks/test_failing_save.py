"""One rank cannot write its part: nothing half is published, the other rank does not hang, the next save works."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.trainhooks.ranks.conftest import Start
from trainhooks import read_metrics
from trainhooks.storage.checkpoints import CheckpointStore

JOB = Path(__file__).with_name("job.py")


def published(out: Path) -> list[int]:
    """Return the steps of the checkpoints that are there; each is whole, and nothing half lies beside them."""
    store = CheckpointStore(out / "checkpoints", "any")
    steps = [each.manifest.step for each in store.published()]
    newest = store.newest_good()
    assert newest is not None
    assert newest.manifest.step == steps[-1]
    assert not (store.root / "quarantine").exists()
    return steps


def drafts(out: Path) -> list[str]:
    return [path.name for path in (out / "checkpoints").glob(".*")]


def final(out: Path) -> list[str]:
    return [(out / f"final-{rank}").read_text() for rank in range(2)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What an uninterrupted training ends with, once it is asked for."""
    return {}


def uninterrupted(start: Start, whole: dict[str, list[str]], root: Path) -> list[str]:
    if not whole:
        team = start(JOB, root / "whole")
        assert team.codes() == [0, 0], team.said()
        assert published(root / "whole") == [4, 8, 12]
        whole["final"] = final(root / "whole")
    return whole["final"]


@pytest.mark.parametrize(
    ("fault", "rank", "words", "how"),
    [
        ("ENOSPC", 1, "No space left on device", "synchronous"),
        ("EIO", 0, "Input/output error", "asynchronous"),
        ("bug", 1, "ZeroDivisionError: a planted bug", "asynchronous"),
        ("publish", 0, "ZeroDivisionError: a planted bug", "synchronous"),
    ],
)
def test_a_rank_that_cannot_write_keeps_all_from_publishing_and_the_training_continues(
    start: Start, whole: dict[str, list[str]], tmp_path: Path, fault: str, rank: int, words: str, how: str
) -> None:
    out = tmp_path / "run"
    team = start(JOB, out, fault, rank, 8, HOW=how)
    assert team.codes() == [0, 0], team.said()
    failing, other = team.jobs[rank].said(), team.jobs[1 - rank].said()
    for said, why in ((failing, words), (other, "Another rank could not write its part")):
        assert "the checkpoint of step 8 has failed" in said
        assert why in said
    steps = published(out)
    assert steps[0] == 4
    assert 8 not in steps
    assert steps[-1] > 8, "the next save works"
    assert not drafts(out)
    assert final(out) == uninterrupted(start, whole, tmp_path)


@pytest.mark.parametrize(("fault", "steps"), [("ENOSPC", [4, 8, 12]), ("bug", [4, 12])])
def test_all_ranks_know_alike_whether_there_is_another_try(
    start: Start, tmp_path: Path, fault: str, steps: list[int]
) -> None:
    team = start(JOB, tmp_path / "run", fault, 0, 8, HOW="demanded")
    assert team.codes() == [0, 0], team.said()
    assert published(tmp_path / "run") == steps
    refusals = [job.said().count("refused The checkpoint") for job in team.jobs]
    assert refusals == ([0, 0] if fault == "ENOSPC" else [1, 1])


@pytest.mark.parametrize("how", ["synchronous", "asynchronous"])
def test_a_rank_that_is_killed_while_it_writes_ends_the_others_and_all_continue_exactly(
    start: Start, whole: dict[str, list[str]], tmp_path: Path, how: str
) -> None:
    out = tmp_path / "run"
    team = start(JOB, out, "kill", 1, 8, HOW=how)
    codes = team.codes(30)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, -signal.SIGKILL), team.said()
    assert published(out) == [4]
    again = start(JOB, out, HOW=how)
    assert again.codes() == [0, 0], again.said()
    assert "from 4" in again.said()
    assert published(out)[-1] == 12
    assert not drafts(out)
    assert final(out) == uninterrupted(start, whole, tmp_path)
    assert [row["step"] for row in read_metrics(out)] == list(range(12))


def test_a_rank_that_stands_still_is_waited_for_as_long_as_was_said(start: Start, tmp_path: Path) -> None:
    begin = time.monotonic()
    team = start(JOB, tmp_path / "run", "freeze", 1, 8, PATIENCE=2)
    assert team.jobs[0].wait(30) == 1
    assert time.monotonic() - begin >= 2
    assert "Another rank of this training has ended or does not answer" in team.jobs[0].said()
    assert team.jobs[1].poll() is None
    os.kill(team.jobs[1].pid, signal.SIGKILL)
    assert published(tmp_path / "run") == [4]
