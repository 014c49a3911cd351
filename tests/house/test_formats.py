"""The pages on file formats name everything that is written."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _kinds() -> set[str]:
    """Kinds of events, as literals or as constants, where the session records them."""
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "trainhooks").rglob("*.py")}
    constants = dict(re.findall(r'^([A-Z_]+) = "([a-z_]+)"$', "\n".join(sources.values()), flags=re.MULTILINE))
    named = re.findall(r'\b_?sink\.(?:event|announce)\(\s*(?:"(\w+)"|(?:\w+\.)?([A-Z]+))', "\n".join(sources.values()))
    return {literal or constants[constant] for literal, constant in named}


def test_every_kind_of_event_is_on_the_page() -> None:
    page = (ROOT / "docs" / "formats" / "metrics.md").read_text(encoding="utf-8")
    kinds = _kinds()
    assert {"attempt", "checkpoint", "connection_failure"} <= kinds, "the test still finds them"
    assert [kind for kind in sorted(kinds) if f"| `{kind}` |" not in page] == []
