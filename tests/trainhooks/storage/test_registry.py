"""The experiment database: what is written is read, recoveries name their origin, two processes get along."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from trainhooks.errors import TrainhooksError
from trainhooks.storage import registry
from trainhooks.storage.registry import MetricSummary, Registry, Run

RUN = Run(
    run_id="run-a",
    origin=None,
    directory="/runs/a",
    config={"lr": 0.1, "layers": [1, 2]},
    created_at=5.0,
    metrics=(MetricSummary(name="val/loss", best=0.5, last=0.7, rows=9),),
    tags=("best",),
    checkpoints=(
        {"run_id": "run-a", "path": "/runs/a/step-3", "step": 3, "created_at": 6.0, "metrics": {"val/loss": 0.5}},
    ),
    sessions=({"run_id": "run-a", "attempt": 1, "started_at": 5.0, "ended_at": None, "status": "running"},),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    database = Registry(tmp_path / "deep" / "experiments.db")
    database.record(RUN)
    database.record(RUN)
    assert database.runs() == [RUN]
    assert database.find("nobody") is None
    database.close()


def test_a_recovery_is_a_run_that_names_its_origin(tmp_path: Path) -> None:
    database = Registry(tmp_path / "experiments.db")
    assert database.record_recovery(RUN, created_at=9.0) == "run-a_recovered"
    assert database.record_recovery(RUN, created_at=10.0) == "run-a_recovered_2"
    recovered = database.find("run-a_recovered")
    assert recovered is not None
    assert (recovered.origin, recovered.config) == ("run-a", RUN.config)
    assert database.find("run-a") == RUN
    database.close()


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "experiments.db"
    script = (
        "import sys; from pathlib import Path; from trainhooks.storage.registry import Registry, Run\n"
        "for at in range(40):\n"
        "    database = Registry(Path(sys.argv[1]))\n"
        "    database.record(Run(run_id=f'{sys.argv[2]}-{at}', origin=None, directory='d', config={}, created_at=at))\n"
        "    shared = Run(run_id='shared', origin=None, directory='d', config={}, created_at=0)\n"
        "    database.record_recovery(shared, created_at=at)\n"
        "    database.close()\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    database = Registry(path)
    names = [run.run_id for run in database.runs()]
    database.close()
    assert len(names) == len(set(names)) == 2 * 40 + 1 + 80


def test_an_older_database_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(tmp_path / "experiments.db").close()
    monkeypatch.setattr(registry, "MIGRATIONS", (*registry.MIGRATIONS, "ALTER TABLE runs ADD COLUMN note TEXT"))
    Registry(tmp_path / "experiments.db").close()
    connection = sqlite3.connect(tmp_path / "experiments.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert "note" in [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
    connection.close()


def test_a_newer_database_and_a_foreign_file_are_refused_unharmed(tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(TrainhooksError, match="newer"):
        Registry(newer)
    foreign = tmp_path / "notes.txt"
    foreign.write_text("these are my notes " * 100)
    with pytest.raises(TrainhooksError, match="cannot be used"):
        Registry(foreign)
    assert foreign.read_text().startswith("these are my notes")


@pytest.mark.parametrize(
    ("kind", "expected"), [("ext4", False), ("nfs4", True), ("fuse.sshfs", True), ("cifs", True), ("tmpfs", False)]
)
def test_network_file_systems_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, expected: bool
) -> None:
    mounts = f"root / ext4 rw 0 0\nx {tmp_path} {kind} rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **options: mounts)
    assert registry.is_network(tmp_path / "deep") is expected
