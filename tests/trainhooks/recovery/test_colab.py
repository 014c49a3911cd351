"""Colab: a run on Google Drive is found in a fresh process; a mount that is missing or gone is one sentence."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

Train = Callable[..., nn.Linear]

FRESH = """
import os, sys
from pathlib import Path
from trainhooks.recovery import place, recover
from trainhooks.errors import TrainhooksError
place.COLAB = Path(sys.argv[1])
{more}
try:
    run = recover()
    print("found", run.root)
except TrainhooksError as error:
    print(error)
"""

GONE = """
import errno
real = os.scandir
def scandir(path="."):
    if "drive" in str(path):  # as FUSE answers once its process has died
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))
    return real(path)
os.scandir = scandir
"""


def fresh(content: Path, work: Path, more: str = "") -> str:
    """Return what a new process says that looks for a run, with `content` in the place of /content."""
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", FRESH.format(more=more), content], cwd=work, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "where",
    [
        "drive/MyDrive/run",
        "drive/MyDrive/project/run",
        "drive/Shareddrives/team/run",
        "workspace",
    ],
)
def test_a_run_is_found_where_colab_keeps_it(tmp_path: Path, ours: Train, where: str) -> None:
    content = tmp_path / "content"
    (content / "drive" / "MyDrive").mkdir(parents=True)
    ours(content / where)
    assert fresh(content, tmp_path / "work") == f"found {content / where}\n"


def test_a_drive_that_is_not_mounted_is_reported(tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    said = fresh(content, tmp_path / "work")
    assert f"  - {content}/drive/MyDrive: Google Drive is not mounted: run drive.mount('{content}/drive')\n" in said


def test_a_mount_that_is_gone_is_one_sentence(tmp_path: Path, ours: Train) -> None:
    content = tmp_path / "content"
    ours(content / "drive" / "MyDrive" / "run")
    [line] = [line for line in fresh(content, tmp_path / "work", GONE).splitlines() if "MyDrive" in line]
    assert "its mount is gone" in line
    assert f"run drive.mount('{content}/drive', force_remount=True)" in line
    ours(tmp_path / "work" / "runs" / "local")
    assert fresh(content, tmp_path / "work", GONE) == "found runs/local\n", "what is elsewhere is found all the same"


def test_elsewhere_nobody_mentions_drive(tmp_path: Path) -> None:
    said = fresh(tmp_path / "nowhere", tmp_path / "work")
    assert "training_output: it does not exist" in said
    assert "drive" not in said
