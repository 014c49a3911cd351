"""The checks of `doctor` on systems that a test machine is not: other versions, file systems, clocks and limits."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdproxy.errors import ConfigError
from kdproxy.ops.doctor import access, disk, machine, versions
from kdproxy.ops.doctor.check import State, ok, run_checks
from kdproxy.ops.doctor.machine import Reading, reading_of
from kdproxy.ops.doctor.upstreams import upstreams_to_check

OK, NOTE, PROBLEM = State.OK, State.NOTE, State.PROBLEM


def states(checks: Any) -> list[State]:
    return [check.state for check in checks]


# -- versions -----------------------------------------------------------------------------------------------


def test_releases_with_a_fault_are_problems_and_fixed_ones_are_not() -> None:
    installed = {"aiohttp": "3.14.2", "orjson": "3.11.5", "diskcache": "5.6.3"}
    assert states(versions.check_packages(installed.get)) == [PROBLEM, PROBLEM, OK]
    installed |= {"aiohttp": "3.14.3", "orjson": "3.11.6"}
    assert states(versions.check_packages(installed.get)) == [OK, OK, OK]
    assert states(versions.check_packages({"aiohttp": "4.0.0a1", "orjson": "3.12"}.get)) == [OK, OK, OK]


def test_a_package_without_metadata_is_a_note() -> None:
    assert states(versions.check_packages(lambda _: None))[:2] == [NOTE, NOTE]


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.46.1", True),
        ("3.50.4", True),
        ("3.50.7", False),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.53.0", False),
    ],
)
def test_sqlite_releases_with_the_wal_reset_bug(version: str, has_bug: bool) -> None:
    assert versions.has_wal_reset_bug(version) is has_bug
    # A note: kdproxy writes with one connection, and distributions fix it without a new number.
    assert states(versions.check_sqlite(version)) == [NOTE if has_bug else OK]


def test_python_is_judged_by_what_it_does_not_by_its_number() -> None:
    assert states(versions.check_python((3, 12, 3), has_uvloop=False, pauses=True)) == [OK]
    assert states(versions.check_python((3, 12, 3), has_uvloop=False, pauses=False)) == [PROBLEM]
    assert states(versions.check_python((3, 12, 3), has_uvloop=True, pauses=False)) == [OK]
    assert states(versions.check_python((3, 11, 2), has_uvloop=False, pauses=False)) == [OK]
    assert states(versions.check_python(has_uvloop=False)) == [OK]


# -- disk ---------------------------------------------------------------------------------------------------


def room(**members: int) -> Any:
    usual = {"f_bavail": 1 << 20, "f_frsize": 4_096, "f_blocks": 1 << 21, "f_files": 1 << 20, "f_favail": 1 << 19}
    return lambda path: SimpleNamespace(**{**usual, **members})


def test_free_space_and_inodes() -> None:
    here = Path("/data")
    assert states(disk.check_room(here, room())) == [OK]
    assert states(disk.check_room(here, room(f_bavail=1_000))) == [PROBLEM]
    assert states(disk.check_room(here, room(f_bavail=100_000))) == [NOTE]
    assert states(disk.check_room(here, room(f_favail=3))) == [OK, PROBLEM]


def test_a_file_system_that_counts_no_inodes_has_enough() -> None:
    """Monitors reported a full disk on btrfs, which says 0 of 0."""
    assert states(disk.check_room(Path("/data"), room(f_files=0, f_favail=0))) == [OK]
    assert states(disk.check_room(Path("/data"), room(f_blocks=0, f_bavail=0))) == [NOTE]


@pytest.mark.parametrize(
    ("type_name", "state"),
    [("ext4", OK), ("apfs", OK), ("", OK), ("nfs4", NOTE), ("fuse.sshfs", NOTE), ("tmpfs", NOTE), ("overlay", NOTE)],
)
def test_types_of_file_systems(tmp_path: Path, type_name: str, state: State) -> None:
    assert states(disk.check_file_system(tmp_path, type_name)) == [state]


def test_the_type_is_that_of_the_mount() -> None:
    assert disk.file_system_of(Path("/data/kd"), "x / ext4 rw 0 0\ny /data nfs4 rw 0 0\n") == "nfs4"


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
def test_a_file_system_that_does_not_sync_is_a_problem(tmp_path: Path, number: int) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    assert states(disk.check_sync(tmp_path, fsync)) == [PROBLEM]
    assert states(disk.check_sync(tmp_path)) == [OK]


def test_a_file_system_without_locks_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(disk.check_locks(tmp_path)) == [OK]

    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    assert states(disk.check_locks(tmp_path)) == [PROBLEM]


# -- access -------------------------------------------------------------------------------------------------


@pytest.fixture
def reachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(access, "_is_reachable", lambda path: True)
    (tmp_path / "lock").write_bytes(b"{}")
    tmp_path.chmod(0o700)
    (tmp_path / "lock").chmod(0o600)
    return tmp_path


def test_modes_of_files(reachable: Path) -> None:
    assert states(access.check_access(reachable, type_name="ext4")) == [OK]
    (reachable / "lock").chmod(0o644)
    assert states(access.check_access(reachable, type_name="ext4")) == [PROBLEM]


def test_modes_mean_nothing_on_a_mount_that_has_none(reachable: Path) -> None:
    """Windows disks in WSL and shared folders show 0777 for all files."""
    reachable.chmod(0o777)
    assert states(access.check_access(reachable, type_name="9p")) == [NOTE]


def test_an_open_file_in_a_closed_directory_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "lock").write_bytes(b"{}")
    (tmp_path / "data" / "lock").chmod(0o666)
    assert states(access.check_access(tmp_path / "data", type_name="ext4")) == [OK]


def test_a_group_of_ones_own_is_no_group(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With umask 002 each user's files are writable for a group that has the user's name and no other member."""
    reachable.chmod(0o770)
    user, mine = SimpleNamespace(pw_name="ann", pw_gid=7), SimpleNamespace(gr_gid=7, gr_name="ann", gr_mem=[])
    monkeypatch.setattr("pwd.getpwuid", lambda _: user)
    monkeypatch.setattr("grp.getgrgid", lambda _: mine)
    assert states(access.check_access(reachable, type_name="ext4")) == [OK]
    monkeypatch.setattr("grp.getgrgid", lambda _: SimpleNamespace(gr_gid=7, gr_name="lab", gr_mem=["bob"]))
    assert states(access.check_access(reachable, type_name="ext4")) == [NOTE]


# -- machine ------------------------------------------------------------------------------------------------


def test_the_clock_is_compared_with_the_upstream_that_agrees_best() -> None:
    assert states(machine.check_clock(1e9, None, [])) == [OK]
    assert states(machine.check_clock(1e9, None, [Reading("a", 4_000.0)])) == [PROBLEM]
    assert states(machine.check_clock(1e9, None, [Reading("a", 4_000.0), Reading("b", -2.0)])) == [OK]
    assert states(machine.check_clock(1e9, 1e9 + 3_600, [])) == [PROBLEM]
    assert states(machine.check_clock(1e9, 1e9 + 3_600, [Reading("b", -2.0)])) == [NOTE]
    assert states(machine.check_clock(1e9, 1e9 + 60, [])) == [OK]


def test_a_date_from_a_cache_is_read_with_its_age() -> None:
    date = ("Date", "Sun, 09 Sep 2001 01:46:40 GMT")  # 1e9
    assert reading_of("a", (date,), 1e9 + 5) == ("a", 5.0)
    assert reading_of("a", (date, ("Age", "3600")), 1e9 + 3_605) == ("a", 5.0)
    for headers in ((), (("Date", "yesterday"),), (date, ("Age", "old")), (("Date", ""),)):
        assert reading_of("a", headers, 1e9) is None


def test_the_limit_of_open_files() -> None:
    assert states(machine.check_open_files(100, 18)) == [PROBLEM]
    assert states(machine.check_open_files(1_024, 480)) == [NOTE]
    assert states(machine.check_open_files(65_536, 32_736)) == [OK]


# -- which upstreams, and what fails --------------------------------------------------------------------------


def test_only_upstreams_that_are_known_to_be_used_are_asked() -> None:
    nobody, openai = (lambda name: False), (lambda name: name == "openai")
    assert upstreams_to_check((), {}, nobody) == []
    assert [(each.name, used) for each, used in upstreams_to_check((), {}, openai)] == [("openai", True)]
    # A key in the environment of a machine with its own server may be that server's, and it may reach no other.
    remembered = {"vllm": "http://127.0.0.1:8000/v1", "openai": "https://api.openai.com/v1"}
    assert [(each.name, used) for each, used in upstreams_to_check((), remembered, openai)] == [("vllm", False)]


def test_a_check_that_fails_is_a_result_with_a_reason() -> None:
    """A doctor printed `Doctor failed:` and nothing more for an exception without a message."""

    def fails(error: Exception) -> Any:
        def check() -> Any:
            raise error

        return check

    errors = [RuntimeError(), OSError(errno.ENODEV, "No such device"), ConfigError(["a", "b"], hint="Fix them.")]
    found = run_checks([*(("x", fails(error)) for error in errors), ("y", lambda: [ok("y", "fine")])])
    assert [check.text for check in found] == [
        "Could not be checked: RuntimeError.",
        "Could not be checked: No such device.",
        "a.",
        "b.",
        "fine",
    ]
    assert states(found) == [NOTE, NOTE, PROBLEM, PROBLEM, OK]
