"""The specification pages are complete: every member, mode and word of the code is on its page."""

import re
from pathlib import Path

import pytest

from kdproxy.core import key
from kdproxy.core.cache_status import Forward, forwarded, hit, refused
from kdproxy.core.policy import Mode
from kdproxy.core.record import decode, encode
from kdproxy.providers.question import ENDPOINTS

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "tests" / "data" / "journal_v1.jsonl"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]


def names(cell: str) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", cell, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`\n]+)`", prose))


def test_keys_lists_what_is_out_of_the_key_of_each_endpoint() -> None:
    listed: dict[tuple[str, str], set[str]] = {}
    current: list[tuple[str, str]] = []
    for cells in rows(page("keys.md")):
        provider, colon, endpoints = cells[0].strip("| ").partition(": ")
        if colon and provider in ("openai", "anthropic", "gemini"):
            current = [(provider, endpoint) for endpoint in names(endpoints)]
        elif cells[0].strip("| "):
            current = []
        for endpoint in current:
            listed.setdefault(endpoint, set()).update(names(cells[1]))
    assert listed == {(endpoint.provider, endpoint.name): set(endpoint.out_of_key) for endpoint in ENDPOINTS}


def test_keys_names_every_header_and_credential() -> None:
    text = page("keys.md")
    assert names(text) >= set(key.KEY_HEADERS) | set(key.CREDENTIAL_QUERY)
    assert {name.lower() for name in names(text)} >= set(key.CREDENTIAL_HEADERS)
    assert f"Version **{key.KEY_VERSION}**" in text


@pytest.mark.parametrize("mode", Mode)
def test_modes_describes_each_mode_as_it_is(mode: Mode) -> None:
    [row] = [cells for cells in rows(page("modes.md")) if cells[0].strip("| ") == f"`{mode}`" and len(cells) == 5]
    assert row[1].startswith("yes") == mode.reads
    assert row[2].startswith("never") == (not mode.buys)
    assert row[3].startswith("no") == (not mode.stores)


def test_modes_names_each_reason_and_each_detail() -> None:
    text = page("modes.md")
    assert names(text) >= {f"fwd={forward}" for forward in Forward}
    engine = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "kdproxy" / "engine").glob("*.py"))
    details = set(re.findall(r'\bdetail ?= ?"([^"]+)"', engine)) | set(re.findall(r'else "(live)"', engine))
    assert details
    assert names(text) >= details


def test_the_examples_of_modes_are_what_the_code_writes() -> None:
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert re.findall(r"^Cache-Status: (.+)$", page("modes.md"), re.MULTILINE) == [
        hit(digest),
        hit(digest, detail="collapsed"),
        forwarded(Forward.MISS, status=200, is_stored=True, key=digest),
        forwarded(Forward.MISS, status=200, is_collapsed=True, key=digest, detail="live"),
        forwarded(Forward.BYPASS, status=200, detail="hosted tool web_search"),
        forwarded(Forward.METHOD, status=200),
        refused("not_stored"),
    ]


def test_the_check_in_the_journal_page_works() -> None:
    [program] = re.findall(r"```python\n(.+?)```", page("formats/journal.md"), re.DOTALL)
    scope: dict[str, object] = {}
    exec(program, scope)
    is_whole = scope["is_whole"]
    assert callable(is_whole)
    for line in SAMPLES.read_bytes().splitlines(keepends=True):
        assert is_whole(line)
        assert not is_whole(line.replace(b'"v":1', b'"v":2'))
        assert not is_whole(line[:-2])


def test_the_journal_page_lists_every_member_in_order() -> None:
    text = page("formats/journal.md")
    listed = [name for cells in rows(text) for name in re.findall(r"`([a-z_0-9]+)`", cells[0])]
    for line in SAMPLES.read_bytes().splitlines(keepends=True):
        record = decode(line)
        members = re.findall(
            r'"([a-z_0-9]+)":',
            re.sub(rb'"(?:request|usage|stream_options|messages)":[\[{].*?[\]}](?=,")', b"", line).decode(),
        )
        top = [member for member in members if member != "sha256"]
        assert [member for member in top if member not in listed] == []
        assert encode(record) == line


def test_the_directory_page_names_every_file_and_row() -> None:
    text = page("formats/data-directory.md")
    for name in (".gitignore", "directory.json", "lock", "api_recovery.jsonl", "index/"):
        assert re.search(rf"^  {re.escape(name)}\s", text, re.MULTILINE)
    for prefix in ("a/", "p/", "t/", "r/"):
        assert f"`{prefix}" in text
