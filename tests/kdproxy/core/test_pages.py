"""The specification pages are complete: every member, mode and word of the code is on its page."""

import re
from pathlib import Path

import pytest

from kdproxy.core import key, position
from kdproxy.core.cache_status import Forward, forwarded, hit, refused
from kdproxy.core.models import Other
from kdproxy.core.policy import Mode
from kdproxy.core.record import encode, read
from kdproxy.providers.member import Member, Standing
from kdproxy.providers.question import ENDPOINTS

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "tests" / "data" / "journal_v1.jsonl"
SAMPLES_V2 = ROOT / "tests" / "data" / "journal_v2.jsonl"


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


STANDINGS = {
    Standing.IN: "in",
    Standing.OUT: "out",
    Standing.CREDENTIAL: "out, stored as `*`",
    Standing.HIDDEN: "in, stored as `*`",
    Standing.HOSTED: "not pure: `allow_hosted_tools`",
    Standing.STATE: "not pure: never kept",
}


def member_rows() -> list[str]:
    """The table of members as the page shows it: one row for what endpoints share."""
    of: dict[Member, dict[str, list[str]]] = {}
    for endpoint in ENDPOINTS:
        for member in endpoint.members.table:
            of.setdefault(member, {}).setdefault(endpoint.provider, []).append(endpoint.name)
    return [
        f"| `{member.position}` | {STANDINGS[member.standing]} | "
        + "; ".join(f"{provider}: {', '.join(names)}" for provider, names in endpoints.items())
        + f" | {member.reason} | {member.source} |"
        for member, endpoints in of.items()
    ]


def test_keys_lists_each_member_that_has_a_rule() -> None:
    shown = [line for line in page("keys.md").splitlines() if line.startswith("| `") and line.count(" | ") == 4]
    assert shown == member_rows()


def test_each_rule_names_its_source_and_when_it_was_read() -> None:
    for endpoint in ENDPOINTS:
        for member in endpoint.members.table:
            assert re.search(r"read 2026-\d\d", member.source), member
            assert member.reason, member


def test_keys_names_every_header_and_credential() -> None:
    text = page("keys.md")
    assert names(text) >= set(key.KEY_HEADERS) | set(key.ROUTING_HEADERS) | set(key.CREDENTIAL_QUERY)
    assert {name.lower() for name in names(text)} >= set(key.CREDENTIAL_HEADERS)
    assert names(text) >= set(position.CREDENTIAL_NAMES) | set(position.CREDENTIAL_ENDS)
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
        hit(digest, detail="prompt-match", ignored=("max_tokens", "seed")),
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
    for line in (SAMPLES.read_bytes() + SAMPLES_V2.read_bytes()).splitlines(keepends=True):
        found = read(line)
        if isinstance(found.record, Other):
            continue
        members = re.findall(
            r'"([a-z_0-9]+)":',
            re.sub(rb'"(?:request|usage|stream_options|messages)":[\[{].*?[\]}](?=,")', b"", line).decode(),
        )
        top = [member for member in members if member != "sha256"]
        assert [member for member in top if member not in listed] == []
        assert found.version == 1 or encode(found.record, found.name) == line


def test_the_directory_page_names_every_file_and_row() -> None:
    text = page("formats/data-directory.md")
    for name in (".gitignore", "directory.json", "lock", "api_recovery.jsonl", "index/"):
        assert re.search(rf"^  {re.escape(name)}\s", text, re.MULTILINE)
    for prefix in ("s/", "m/", "w/", "o/", "r/"):
        assert f"`{prefix}" in text
