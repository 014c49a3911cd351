"""The proxy dies before, after and within each operation on its files: nothing that a client had is lost or paid twice.

The points are found by running: each label that a life passes is killed at in later lives. With `-s` the histogram of
the points hit is shown.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kdproxy.testing.teacher import ScriptedTeacher
from tests.e2e.crash.campaign import Campaign, Report
from tests.e2e.crash.lives import Forks, forks
from tests.e2e.crash.oracle import Oracle
from tests.e2e.crash.points import SHORT

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="files of descriptors are read from /proc"),
]


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forks(tmp_path_factory.mktemp("lives")) as opened:
        yield opened


@pytest.fixture
def campaign(forked: Forks, tmp_path: Path, teacher: ScriptedTeacher, http: Any) -> Callable[..., Campaign]:
    def campaign(seed: int, **more: Any) -> Campaign:
        rng = Random(seed)
        return Campaign(forked, tmp_path / "data", Oracle(teacher, rng, http), rng, Report(seed), **more)

    return campaign


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(2, 7))])
async def test_killed_at_each_point(campaign: Callable[..., Campaign], seed: int) -> None:
    killing = campaign(seed, power=0.3)
    await killing.kill_at_each(most=110)
    report = await killing.finish()
    print(report.text())
    assert report.is_clean, report.text()
    assert len(report.phases) >= 50, report.text()
    assert len(report.missed()) <= 15, report.missed()


async def test_killed_at_each_point_of_a_first_start(campaign: Callable[..., Campaign]) -> None:
    killing = campaign(3)
    await killing.kill_at_birth()
    report = await killing.finish()
    print(report.text())
    assert report.is_clean, report.text()
    assert len(report.phases) >= 15, report.text()


@pytest.mark.parametrize(
    ("bug", "label", "power"),
    [
        ("no_sync", "after report", 1.0),
        ("reply_before_write", "before write api_recovery.jsonl answer", 0.0),
        ("index_before_journal", "after commit index", 0.0),
        ("used_after_delivery", "before write events.jsonl used", 0.0),
    ],
)
async def test_a_planted_bug_is_found(campaign: Callable[..., Campaign], bug: str, label: str, power: float) -> None:
    """The test of these tests: with each of these bugs a client's answer is lost, or a sample is given twice."""
    killing = campaign(4, bug=bug, power=power)
    for nth in 4 * (2, 4, 1, 3, 6):
        await killing.kill_at(label, nth=nth, from_start=False)
        if killing.oracle.problems:
            break
    report = await killing.finish()
    print(report.text())
    assert not report.is_clean


FAULTS = ("ENOSPC", "EIO", "EROFS", "EMFILE", "EINTR", SHORT)


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_operation_that_fails_loses_nothing(campaign: Callable[..., Campaign], fault: str) -> None:
    failing = campaign(5)
    for nth in failing.rng.sample(range(1, 40), 3) + failing.rng.sample(range(40, 250), 3):
        await failing.fail_at(fault, nth)
    report = await failing.finish()
    print(report.text())
    assert report.is_clean, report.text()
    assert report.phases


@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS)
async def test_each_operation_fails_once_until_a_life_passes(campaign: Callable[..., Campaign], fault: str) -> None:
    failing, nth = campaign(6), 1
    while await failing.fail_at(fault, nth):
        nth += 1 if nth < 60 else 7
        if not failing.report.is_clean:
            break
    report = await failing.finish()
    print(report.text())
    assert report.is_clean, report.text()
    assert report.phases.total() >= 60


async def test_a_planted_loss_on_a_refusing_disk_is_found(campaign: Callable[..., Campaign]) -> None:
    """What the disk refuses once is dropped in place of being written again."""
    failing = campaign(7, bug="refused_is_dropped")
    for nth in range(1, 9):
        await failing.fail_at("ENOSPC", nth, label="write api_recovery.jsonl answer")
        if failing.oracle.problems:
            break
    report = await failing.finish()
    print(report.text())
    assert not report.is_clean
