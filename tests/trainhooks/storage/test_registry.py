"""The experiment database: what is written is read, recoveries name their origin, processes get along."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from trainhooks.core.experiment import KnownCheckpoint, MetricSummary, Run, Session
from trainhooks.errors import TrainhooksError
from trainhooks.storage import registry
from trainhooks.storage.registry import Registry

SAMPLES = Path(__file__).resolve().parents[2] / "data"
RUN = Run(
    run_id="run-a",
    origin=None,
    name="a",
    directory="/runs/a",
    config={"lr": 0.1, "layers": [1, 2]},
    created_at=5.0,
    total_steps=10,
    metrics=(MetricSummary(name="val/loss", best=0.5, last=0.7, rows=9, step=8),),
    tags=("best",),
    checkpoints=(KnownCheckpoint(path="/runs/a/step-3", step=3, created_at=6.0, metrics={"val/loss": 0.5}),),
    sessions=(Session(attempt=1, started_at=5.0, status="running", pid=7, host="h", seen_at=6.0),),
)


def without_rights(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a script in a process for which permissions hold even where this one is root's."""
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    command = [*drop, sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with closing(Registry(tmp_path / "deep" / "experiments.db")) as database:
        database.record(RUN)
        database.record(RUN)
        assert database.runs() == [RUN]
        assert database.find("nobody") is None


def test_no_session_is_forgotten(tmp_path: Path) -> None:
    second = Session(attempt=2, started_at=9.0, status="running")
    with closing(Registry(tmp_path / "experiments.db")) as database:
        for sessions in (RUN.sessions, (second,)):
            database.record(Run(run_id="a", origin=None, directory="d", config={}, created_at=1, sessions=sessions))
        found = database.find("a")
    assert found is not None
    assert found.sessions == (*RUN.sessions, second)


def test_a_recovery_is_a_run_that_names_its_origin(tmp_path: Path) -> None:
    with closing(Registry(tmp_path / "experiments.db")) as database:
        assert database.record_recovery(RUN, created_at=9.0) == "run-a_recovered"
        assert database.record_recovery(RUN, created_at=10.0) == "run-a_recovered_2"
        recovered = database.find("run-a_recovered")
        assert recovered is not None
        assert (recovered.origin, recovered.config) == ("run-a", RUN.config)
        assert database.find("run-a") == RUN


def test_processes_that_begin_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "experiments.db"
    script = (
        "import sys; from pathlib import Path\n"
        "from trainhooks.storage.registry import Registry; from trainhooks.core.experiment import Run\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for at in range(30):\n"
        "    database = Registry(Path(sys.argv[1]))\n"
        "    database.record(Run(run_id=f'{sys.argv[2]}-{at}', origin=None, directory='d', config={}, created_at=at))\n"
        "    shared = Run(run_id='shared', origin=None, directory='d', config={}, created_at=0)\n"
        "    database.record_recovery(shared, created_at=at)\n"
        "    database.close()\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "abc"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # all of them make the same file
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    with closing(Registry(path)) as database:
        names = [run.run_id for run in database.runs()]
    assert len(names) == len(set(names)) == 3 * 30 + 1 + 90


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A database as the release wrote it that knew version 1."""
    path = tmp_path / "experiments.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((SAMPLES / "experiments_v1.sql").read_text(encoding="utf-8"))
    return path


def test_busy_while_another_makes_the_file_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite does not wait at this point, whatever timeout it was given."""
    path = tmp_path / "experiments.db"
    waits = []
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as mine,
    ):
        other.execute("CREATE TABLE a (b)")
        other.execute("BEGIN EXCLUSIVE")

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                other.execute("COMMIT")

        monkeypatch.setattr(registry.time, "sleep", wait)
        registry._switch_to_log(mine)
        assert len(waits) == 3
        assert mine.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_of_version_1_is_brought_up_to_date(version_1: Path) -> None:
    with closing(Registry(version_1)) as database:
        run, recovered = database.find("run-a"), database.find("run-a_recovered")
        assert run is not None
        assert recovered is not None
        database.record(RUN)
        assert database.find("run-a") == RUN
    assert (run.config, run.tags, run.name, run.total_steps) == ({"lr": 0.1, "layers": [1, 2]}, ("best",), "", None)
    assert run.metrics == (MetricSummary(name="val/loss", best=0.5, last=0.7, rows=9),)
    assert run.sessions == (Session(attempt=1, started_at=5.0, ended_at=7.0, status="closed"),)
    assert recovered.origin == "run-a"
    with closing(sqlite3.connect(version_1)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_migration_that_fails_changes_nothing(version_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = "ALTER TABLE runs ADD COLUMN name TEXT; ALTER TABLE nobody ADD COLUMN name TEXT"
    monkeypatch.setattr(registry, "MIGRATIONS", (registry.MIGRATIONS[0], half))
    with pytest.raises(TrainhooksError, match="no such table"):
        Registry(version_1)
    with closing(sqlite3.connect(version_1)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert "name" not in [row[1] for row in connection.execute("PRAGMA table_info(runs)")]


def test_a_newer_database_and_a_foreign_file_are_refused_unharmed(tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = newer.read_bytes()
    for is_copy in (False, True):
        with pytest.raises(TrainhooksError, match=r"newer trainhooks \(version 99.*Hint: Upgrade trainhooks"):
            Registry(newer, is_copy=is_copy)
    assert newer.read_bytes() == before
    foreign = tmp_path / "notes.txt"
    foreign.write_text("these are my notes " * 100)
    for is_copy in (False, True):
        with pytest.raises(TrainhooksError, match="cannot be used"):
            Registry(foreign, is_copy=is_copy)
    assert foreign.read_text() == "these are my notes " * 100


READ = """
import sys; from pathlib import Path; from trainhooks.storage.registry import Registry
print([run.run_id for run in Registry(Path(sys.argv[1]), is_copy=True).runs()])
"""


def test_reading_leaves_nothing_behind(tmp_path: Path, version_1: Path) -> None:
    before = version_1.read_bytes()
    with closing(Registry(version_1, is_copy=True)) as database:
        assert {run.run_id for run in database.runs()} == {"run-a", "run-a_recovered"}
    assert version_1.read_bytes() == before
    path = tmp_path / "log" / "experiments.db"
    with closing(Registry(path)) as database:
        database.record(RUN)
    with closing(Registry(path, is_copy=True)) as database:
        assert database.runs() == [RUN]
    assert [file.name for file in path.parent.iterdir()] == ["experiments.db"]
    with pytest.raises(TrainhooksError, match="There is no experiment database"):
        Registry(tmp_path / "nowhere" / "experiments.db", is_copy=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_read_only_place_is_read_and_stays_as_it_is(tmp_path: Path) -> None:
    """Both a tidy database and one whose writer was killed."""
    tidy, killed = tmp_path / "tidy", tmp_path / "killed"
    with closing(Registry(tidy / "experiments.db")) as database:
        database.record(RUN)
    with closing(Registry(tmp_path / "live" / "experiments.db")) as database:
        database.record(RUN)
        killed.mkdir()
        for name in ("experiments.db", "experiments.db-wal"):
            shutil.copy(tmp_path / "live" / name, killed)
    for folder in (tidy, killed):
        names = sorted(os.listdir(folder))
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        try:
            done = without_rights(READ, folder / "experiments.db")
        finally:
            folder.chmod(0o755)
        assert done.stdout == "['run-a']\n", done.stderr
        assert sorted(os.listdir(folder)) == names


def test_no_database_is_left_in_a_read_only_place(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from trainhooks.storage.registry import Registry\n"
    script += "Registry(Path(sys.argv[1]))"
    tmp_path.chmod(0o555)
    try:
        for path in (tmp_path / "experiments.db", tmp_path / "deep" / "experiments.db"):
            done = without_rights(script, path)
            assert "cannot be used" in done.stderr
            assert "Hint: Name another file" in done.stderr
    finally:
        tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == []


def test_a_network_file_system_gets_the_plain_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    for is_network in (True, False):
        monkeypatch.setattr(registry, "is_network", lambda path, answer=is_network: answer)
        path = tmp_path / f"{is_network}.db"
        with closing(Registry(path)) as database:
            database.record(RUN)
            assert path.with_name(f"{path.name}-wal").exists() is not is_network
        with closing(sqlite3.connect(path)) as connection:
            modes += connection.execute("PRAGMA journal_mode").fetchone()
        with closing(Registry(path, is_copy=True)) as database:
            assert database.runs() == [RUN]
    assert modes == ["delete", "wal"]
