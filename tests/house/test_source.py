"""What holds for every source file, whoever writes it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("kdproxy", "trainhooks")
EVERYTHING = (*PACKAGES, "tests", "benchmarks", "examples", "tools")
MAX_LINES = 400


def _sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_both_packages_are_found() -> None:
    assert {_name(path).split("/")[0] for path in _sources(*PACKAGES)} == set(PACKAGES)


@pytest.mark.parametrize("path", _sources(*PACKAGES), ids=_name)
def test_module_says_what_it_does(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_bytes())), f"{_name(path)} has no docstring"


@pytest.mark.parametrize("path", _sources(*EVERYTHING), ids=_name)
def test_no_file_outgrows_its_reader(path: Path) -> None:
    lines = path.read_bytes().count(b"\n")
    assert lines <= MAX_LINES, f"{_name(path)} has {lines} lines: give it a second file"


def test_only_the_command_line_prints() -> None:
    found = [
        f"{_name(path)}:{node.lineno}"
        for path in _sources(*PACKAGES)
        if path.relative_to(ROOT).parts[1] != "cli"
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make serve" in readme
    assert "make test" in readme
