"""What is in the wheel and in the sdist: all that runs, all that a packager needs, and nothing of this machine."""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

import pytest

import kdproxy

ROOT = Path(__file__).resolve().parents[2]
NOT_CODE = {"kdproxy/py.typed", "kdproxy/core/prices.toml", "trainhooks/py.typed"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True, timeout=120)
    return folder


def _tracked(*folders: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_wheel_holds_the_two_packages_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        metadata = f"kdproxy-{kdproxy.__version__}.dist-info"
        head = HeaderParser().parsestr(wheel.read(f"{metadata}/METADATA").decode())
        commands = wheel.read(f"{metadata}/entry_points.txt").decode()
    code = {name for name in names if not name.startswith(metadata)}
    assert code == _tracked("kdproxy", "trainhooks")
    assert {name for name in code if not name.endswith(".py")} == NOT_CODE
    assert names - code == {
        f"{metadata}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert head["Version"] == kdproxy.__version__
    assert head["License-Expression"] == "Apache-2.0"
    assert commands.split("\n")[1:3] == [
        "kdproxy = kdproxy.cli.main:main",
        "trainhooks = trainhooks.cli.main:main",
    ]


def test_the_sdist_holds_what_git_tracks(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in sdist.getnames()}
    assert {name for name in _tracked() if (ROOT / name).is_file()} <= names
    assert not {name for name in names if name.startswith((".venv", ".git/", "dist/", "kdproxy-data/"))}
    assert {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} <= names
