"""What is in the wheel and in the sdist: all that runs, all that a packager needs, and nothing of this machine."""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

import click
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


def test_the_wheel_alone_has_both_commands_and_its_data(built: Path, tmp_path: Path) -> None:
    """In a new environment, from another folder, with nothing of the checkout: what `pip install .` gives."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    wheel = next(built.glob("*.whl"))
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True, timeout=60)
    (site,) = (venv / "lib").glob("python3*/site-packages")
    # Its dependencies are borrowed; a plain path here reads no .pth file there, so not the editable install either.
    (site / "borrowed.pth").write_text(f"{Path(click.__file__).parents[1]}\n")

    def run(*command: str) -> str:
        environment = {"PATH": f"{venv / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for name in ("kdproxy", "trainhooks"):
        assert run(name, "--version") == f"{name}, version {kdproxy.__version__}\n"
        assert "What to do next" in run(name)
        completion = run("sh", "-c", f"_{name.upper()}_COMPLETE=bash_source {name}")
        assert f"complete -o nosort -F _{name}_completion {name}" in completion
    places = run(
        str(python),
        "-c",
        "import kdproxy, trainhooks, pathlib; from kdproxy.core.pricing import PriceTable; PriceTable.load(None)\n"
        "for each in (kdproxy, trainhooks):\n"
        "    folder = pathlib.Path(each.__file__).parent\n"
        "    print(folder.parent, (folder / 'py.typed').is_file())",
    )
    assert places.splitlines() == [f"{site} True"] * 2
    assert "port" in run("kdproxy", "config")
