"""The lock files: complete, hashed, agreed with each other and with pyproject.toml, and silent about any index."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
NAMES = {path.stem: path for path in LOCKS}


def _pins(path: Path) -> dict[str, set[str]]:
    """Locked versions by package; more than one where markers split by platform or Python."""
    pins: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        text, *hashes = line.split("--hash=")
        requirement = Requirement(text.strip())
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{path.name}: {text.strip()} is not pinned"
        assert hashes, f"{path.name}: {text.strip()} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", value) for value in hashes)
        pins.setdefault(canonicalize_name(requirement.name), set()).add(specifier.version)
    return pins


def _asked(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


def test_every_lock_is_known() -> None:
    assert set(NAMES) == {"build", "runtime", "dev", "bench", "demo", "demo-model"}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_lock_names_no_index_and_no_place(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(-i|--index|--extra-index|--find-links|-f)\b", text, re.MULTILINE)
    assert "/tmp" not in text


@pytest.mark.parametrize(
    ("locks", "extras"),
    [
        (["runtime"], ["speed", "zstd"]),
        (["dev"], ["speed", "zstd", "dev"]),
        (["bench"], ["speed", "zstd", "dev", "bench"]),
        (["demo", "demo-model"], ["speed", "zstd", "demo"]),
    ],
)
def test_lock_holds_what_pyproject_asks_for(locks: list[str], extras: list[str]) -> None:
    pins = {name: versions for lock in locks for name, versions in _pins(NAMES[lock]).items()}
    for requirement in _asked(*extras):
        versions = pins.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement} is not locked: make lock"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: make lock"


@pytest.mark.parametrize("name", ["build", "demo", "dev", "bench"])
def test_what_is_tested_is_what_runs(name: str) -> None:
    runtime, other = _pins(NAMES["runtime"]), _pins(NAMES[name])
    assert {package: runtime[package] for package in runtime.keys() & other.keys()} == {
        package: other[package] for package in runtime.keys() & other.keys()
    }
    if name != "build":
        assert runtime.keys() <= other.keys()


def test_no_lock_needs_torch() -> None:
    heavy = [
        (path.name, name) for path in LOCKS for name in _pins(path) if name in {"torch", "triton"} or "nvidia" in name
    ]
    assert heavy == []
