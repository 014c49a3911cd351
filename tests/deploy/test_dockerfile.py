"""The Dockerfile is linted and read; no engine is asked for, so an image is never built here."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kdproxy import __version__

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def _instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) with comments dropped and continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined if line.strip())]


def _last_stage() -> dict[str, str]:
    instructions = _instructions()
    start = max(index for index, (word, _) in enumerate(instructions) if word == "FROM")
    return dict(instructions[start:])


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint has no wheel for this platform")
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_runs_without_root_and_drains_on_stop() -> None:
    stage = _last_stage()
    user, group = stage["USER"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert stage["ENTRYPOINT"] == '["kdproxy"]'
    assert stage["CMD"].startswith('["serve", "--host", "0.0.0.0"')
    assert stage["VOLUME"] == '["/data"]'
    assert "/_kdproxy/healthz" in stage["HEALTHCHECK"]


def test_every_download_is_checked_against_a_hash() -> None:
    installs = [
        step.strip()
        for word, rest in _instructions()
        if word == "RUN"
        for step in rest.split("&&")
        if "pip install" in step or "pip wheel" in step
    ]
    assert installs
    assert [step for step in installs if "--require-hashes" not in step and "--no-deps" not in step] == []


def test_base_image_has_a_tag() -> None:
    (default,) = [rest for word, rest in _instructions() if word == "ARG" and rest.startswith("PYTHON_IMAGE=")]
    assert default.removeprefix("PYTHON_IMAGE=").startswith("python:3.13-slim")


def test_copied_paths_exist_and_pass_the_ignore_file() -> None:
    allowed = {
        line.removeprefix("!")
        for line in DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for word, rest in _instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == allowed
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_wheel_holds_the_packages_with_their_data_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"kdproxy", "trainhooks", f"kdproxy-{__version__}.dist-info"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in ("kdproxy", "trainhooks")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= names
