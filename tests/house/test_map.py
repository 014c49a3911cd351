"""The map is true: what the docs name exists, every package has its line, no line of the docs is too long to read."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("kdproxy", "trainhooks")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "deploy" / "README.md"])
PATH = re.compile(r"(?<![\w/.*<{-])((?:[\w-]+/)+[\w.-]+\.(?:py|md|sh|toml|yaml|service|ipynb))\b")
ELSEWHERE = ("tests/trainhooks", "tests/kdproxy", "kdproxy", "trainhooks", "docs", "")
"""What a page's paths are relative to, beside its own folder."""
FOLDERS_OF_READERS = ("~", "$", "your", "run/", "runs/", "progress/", "checkpoints/")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_each_file_that_a_page_names_exists(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    places = [ROOT / each for each in ELSEWHERE] + [page.parent]
    gone = [
        name
        for name in sorted(set(PATH.findall(text)))
        if not name.startswith(FOLDERS_OF_READERS) and not any((place / name).exists() for place in places)
    ]
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_each_page_that_a_page_links_to_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_no_line_of_a_page_is_too_long_to_read(page: Path) -> None:
    # A row of a table, an example of bytes and a usage line cannot be broken.
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert [line for line in text.split("\n") if len(line) > 120 and not line.lstrip().startswith(("|", "`"))] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_has_its_line_in_the_map(package: str) -> None:
    page = {"kdproxy": "architecture.md", "trainhooks": "training-architecture.md"}[package]
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    folders = {each.parent for each in (ROOT / package).rglob("*.py")} - {ROOT / package}
    inner = {each.relative_to(ROOT / package).as_posix() for each in folders}
    assert [each for each in sorted(inner) if f"{each.split('/')[0]}/" not in text] == []


WHOLE_TRAININGS = {"crash", "lineage", "preemption", "ranks", "resume", "situations"}
"""Folders of tests/trainhooks/ that start whole processes; CONTRIBUTING.md names them."""


@pytest.mark.parametrize("package", PACKAGES)
def test_the_test_tree_mirrors_the_packages(package: str) -> None:
    def folders(place: Path) -> set[str]:
        return {each.name for each in place.iterdir() if any(each.glob("**/*.py")) and each.name != "__pycache__"}

    tested = folders(ROOT / "tests" / package) - (WHOLE_TRAININGS if package == "trainhooks" else set())
    assert tested == folders(ROOT / package)


PROSE = (".md", ".py", ".sh", ".toml", ".yaml", ".yml", ".cfg", ".service", ".ipynb")
OUR_ISSUE = re.compile(r"(?<![\w&/\"'])#\d{1,4}\b(?!\w)|(?<!\w)issues? #?\d+\b", re.IGNORECASE)
"""A number without its project in front; `owner/project#123` is somebody else's."""


def test_no_file_names_an_issue_of_ours() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name.endswith(PROSE) and not name.startswith("tests/data/")]
    assert files
    found = [
        f"{_name(path)}: {match[0]}"
        for path in files
        if path.exists()
        for match in OUR_ISSUE.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
