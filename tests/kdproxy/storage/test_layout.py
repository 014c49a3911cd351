"""Only a directory that is new, empty or ours is taken; what is refused is left as it was, modes and times too."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from kdproxy.errors import StorageFailed
from kdproxy.storage.directory import DataDirectory

ONLY_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


def state(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything that a user could notice of a tree: modes, owners, times, bytes."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_size, status.st_ino, text)
    return found


def open_and_close(path: Path) -> None:
    DataDirectory.open(path, command="test").close()


def refused(path: Path, *, code: str = "data_dir_foreign") -> StorageFailed:
    with pytest.raises(StorageFailed) as caught:
        open_and_close(path)
    assert caught.value.code == code
    assert "--data-dir" in caught.value.hint
    return caught.value


def write(path: Path, *names: str) -> None:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("mine\n")


FOREIGN = {
    "a project": ["pyproject.toml", "src/app.py", ".git/HEAD", ".gitignore"],
    "one file": ["notes.txt"],
    "a hidden file": [".env"],
    "a training run with a journal of its own": ["api_recovery.jsonl", "metrics.jsonl", "session.json"],
    "a journal beside a configuration": ["api_recovery.jsonl", "kdproxy.toml"],
    "a description of another program": ["directory.json", "main.py"],
    "an index of another program": ["index/cache.db"],
    "a lock of another program": ["lock", "queue"],
    "an index with a web page": ["index/index.html", "lock"],
    "a name much like ours": ["api_recovery.jsonl", "api_recovery.1.jsonl"],
    "a backup beside the journal": ["api_recovery.jsonl", "api_recovery.jsonl.bak"],
}


@pytest.mark.parametrize("names", FOREIGN.values(), ids=FOREIGN)
def test_a_directory_with_other_files_is_refused_and_left_as_it_was(tmp_path: Path, names: list[str]) -> None:
    place = tmp_path / "place"
    write(place, *names)
    place.chmod(0o755)
    before = state(place)
    error = refused(place)
    assert state(place) == before
    assert str(place / "kdproxy-data") in error.hint
    assert ("kdproxy warm" in error.hint) == ("api_recovery.jsonl" in names)


def test_what_is_in_the_way_is_named_but_not_a_page_of_it(tmp_path: Path) -> None:
    write(tmp_path, *(f"file-{number}" for number in range(40)))
    message = refused(tmp_path).message
    assert "file-0, file-1, file-10 and 37 more" in message
    assert "Nothing in it was changed" in message


@pytest.mark.parametrize("how", [".", "", "relative", "~"])
def test_a_project_or_home_is_safe_from_every_verb(tmp_path: Path, how: str) -> None:
    """The command as a user types it."""
    project = tmp_path / "project"
    write(project, "train.py", "rows.jsonl")
    (project / "rows.jsonl").write_bytes(orjson.dumps({"prompt": "q", "response": "a", "model": "m"}) + b"\n")
    project.chmod(0o755)
    given = str(project) if how == "relative" else how
    before = state(project)
    for verb in (["serve", "--port", "0"], ["warm", "rows.jsonl"], ["stats"], ["verify", "--repair"]):
        ran = subprocess.run(
            [sys.executable, "-m", "kdproxy", *verb, *(["--data-dir", given] if given else [])],
            cwd=project,
            env={"PATH": os.environ["PATH"], "HOME": str(project), **({} if given else {"KDPROXY_DATA_DIR": "."})},
            capture_output=True,
            timeout=60,
            text=True,
            check=False,
        )
        assert ran.returncode == 1, ran.stderr
        assert "Traceback" not in ran.stderr
        assert state(project) == before


STRAYS = [
    ".DS_Store",
    "._.DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".nfs000000001",
    ".gitkeep",
    ".localized",
    ".zfs",
    "@eaDir",
]


@pytest.mark.parametrize("stray", STRAYS)
def test_what_a_system_leaves_in_an_empty_directory_is_neither_in_the_way_nor_touched(
    tmp_path: Path, stray: str
) -> None:
    write(tmp_path, stray)
    (tmp_path / "lost+found").mkdir(mode=0o755)
    before = state(tmp_path)
    open_and_close(tmp_path)
    after = state(tmp_path)
    for name in (stray, "lost+found"):
        assert after[str(tmp_path / name)] == before[str(tmp_path / name)]


def test_a_directory_that_its_user_made_keeps_its_mode_and_its_gitignore(tmp_path: Path) -> None:
    """Only our own files are closed to others: the directory may have been opened to a group on purpose."""
    write(tmp_path, ".gitignore")
    tmp_path.chmod(0o750)
    open_and_close(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
    assert (tmp_path / ".gitignore").read_text() == "mine\n"
    ours = [path for path in tmp_path.rglob("*") if path.name != ".gitignore"]
    assert ours
    assert {path.name: oct(path.stat().st_mode) for path in ours if path.stat().st_mode & 0o077} == {}


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o027])
def test_no_umask_opens_or_closes_what_is_ours(tmp_path: Path, umask: int) -> None:
    os.umask(umask)
    open_and_close(tmp_path / "new")
    open_and_close(tmp_path / "new")
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    }
    assert {name: mode for name, mode in modes.items() if mode not in (0o600, 0o700)} == {}


def test_a_directory_that_others_can_write_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    open_and_close(tmp_path / "open")
    assert "other users can put files into the data directory" in caplog.text
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o777


def test_gitignore_is_written_only_in_a_directory_of_our_making(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    for name in ("theirs", "ours"):
        open_and_close(tmp_path / name)
    assert (tmp_path / "ours" / ".gitignore").read_text() == "*\n"
    assert not (tmp_path / "theirs" / ".gitignore").exists()
    (tmp_path / "ours" / ".gitignore").unlink()  # its user wants it so
    open_and_close(tmp_path / "ours")
    assert not (tmp_path / "ours" / ".gitignore").exists()


# -- ours, as earlier releases and interrupted ones left it ---------------------------------------------------

JOURNAL = (Path(__file__).parents[2] / "data" / "journal_v1.jsonl").read_bytes()


@pytest.mark.parametrize(
    "missing",
    [["directory.json"], ["directory.json", "lock"], ["directory.json", "index"], ["directory.json", ".gitignore"]],
    ids="-".join,
)
def test_a_directory_without_its_description_is_still_ours(tmp_path: Path, missing: list[str]) -> None:
    data = tmp_path / "data"
    open_and_close(data)
    (data / "api_recovery.jsonl").write_bytes(JOURNAL)
    for name in missing:
        subprocess.run(["rm", "-r", data / name], check=True)
    open_and_close(data)
    assert orjson.loads((data / "directory.json").read_bytes())["format"]
    assert (data / "api_recovery.jsonl").read_bytes() == JOURNAL


@pytest.mark.parametrize("name", ["api_recovery.jsonl", "api_recovery.000001.jsonl"])
def test_a_journal_that_was_copied_alone_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(JOURNAL)
    directory = DataDirectory.open(tmp_path / "data", command="test")
    assert directory.archive.counters.answers
    directory.close()


@pytest.mark.parametrize("names", [[], [".gitignore"], [".gitignore", "lock"], ["lock"]], ids=str)
def test_a_start_that_was_cut_short_is_begun_again(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch(mode=0o600)
    open_and_close(tmp_path)


def test_other_files_beside_ours_are_let_be(tmp_path: Path) -> None:
    data = tmp_path / "data"
    open_and_close(data)
    write(data, "kdproxy.toml", "notes/today.txt")
    (data / "notes").chmod(0o755)
    before = state(data / "notes") | {"toml": (state(data)[str(data / "kdproxy.toml")],)}
    open_and_close(data)
    assert state(data / "notes") | {"toml": (state(data)[str(data / "kdproxy.toml")],)} == before


# -- places that are none -------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "is not a directory" in refused(tmp_path / "file", code="data_dir_unusable").message
    assert "is a file" in refused(tmp_path / "file" / "below", code="data_dir_unusable").message
    refused(Path("/proc/nowhere/data"), code="data_dir_unusable")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert "symbolic link" in refused(tmp_path / "link", code="data_dir_unusable").message
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", code="data_dir_unusable")
    assert not (tmp_path / "gone").exists()


def test_a_link_to_a_directory_is_judged_by_its_target(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    open_and_close(tmp_path / "link")
    open_and_close(tmp_path / "disk")
    write(tmp_path / "project", "x")
    (tmp_path / "other").symlink_to(tmp_path / "project")
    refused(tmp_path / "other")


@pytest.mark.parametrize("name", ["api_recovery.jsonl", "lock", "directory.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "socket", "directory"])
def test_a_name_of_ours_that_is_no_file_is_neither_followed_nor_waited_for(
    tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    open_and_close(data)
    victim = tmp_path / "victim"
    victim.write_bytes((data / name).read_bytes() or b"mine\n")
    (data / name).unlink()
    monkeypatch.chdir(data)  # a socket's address is short
    match kind:
        case "link":
            (data / name).symlink_to(victim)
        case "pipe":
            os.mkfifo(data / name)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(name)
        case "directory":
            (data / name).mkdir()
    before = state(victim)
    refused(data, code="data_dir_unusable")
    assert state(victim) == before


@ONLY_ROOT
def test_root_leaves_the_directory_of_a_user_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    open_and_close(data)
    for path in [data, *data.rglob("*")]:
        os.chown(path, 12345, 12345)
    before = state(data)
    error = refused(data, code="data_dir_unusable")
    assert "another user (user 12345)" in error.message
    assert "runs as root" in error.message
    assert state(data) == before


@ONLY_ROOT
@pytest.mark.parametrize("name", ["api_recovery.jsonl", "lock", "directory.json"])
def test_one_file_that_another_user_made_is_named(tmp_path: Path, name: str) -> None:
    """Somebody ran it once with sudo."""
    data = tmp_path / "data"
    open_and_close(data)
    os.chown(data / name, 12345, 12345)
    error = refused(data, code="data_dir_unusable")
    assert str(data / name) in error.message
    assert "chown -R root" in error.hint


@pytest.mark.parametrize("home", ["given", "empty", "absent"])
def test_an_empty_home_is_not_taken_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    match home:
        case "given":
            monkeypatch.setenv("HOME", str(tmp_path))
            refused(tmp_path)
        case "empty":
            monkeypatch.setenv("HOME", "")
            open_and_close(tmp_path / "data")
        case "absent":
            monkeypatch.delenv("HOME")
            open_and_close(tmp_path / "data")
    assert list(tmp_path.iterdir()) == ([] if home == "given" else [tmp_path / "data"])


def test_a_directory_that_all_users_share_is_not_taken(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    assert "all users share" in refused(tmp_path).message
    open_and_close(tmp_path / "kdproxy-data")
