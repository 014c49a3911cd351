"""Each promise of docs/threat-model.md, and each case of docs/samples.md, names a test that exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLES = [
    ("threat-model.md", "| promise | test |\n|---|---|", 25),
    ("samples.md", "| case | sample | test |\n|---|---|---|", 20),
]


@pytest.mark.parametrize(("page", "head", "least"), TABLES, ids=[page for page, _, _ in TABLES])
def test_each_row_names_a_test_that_exists(page: str, head: str, least: int) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert {name for name in named if re.search(rf"^(?:async )?def {name}\(", tests, re.M) is None} == set()
    rows = [row for table in re.findall(re.escape(head) + r"\n((?:\|.*\n)+)", text) for row in table.splitlines()]
    assert len(rows) >= least
    assert [row for row in rows if "`test_" not in row.split("|")[-2]] == []
