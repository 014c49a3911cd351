"""The page on the events log names each member that is written."""

from pathlib import Path

import orjson

from kdproxy.core.call_event import EVENT_KINDS, Ended, Sent, encode_event
from kdproxy.core.models import Address, LineName, Usage

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats" / "events.md").read_text(encoding="utf-8")
NAME = LineName("0" * 24, 1)
FULL = (
    Sent("u", 1.0, Address("other", "k", 1), "m", "c", "r", 2, "/p", True, True),
    Ended(NAME, "refused", "no", 1.0, 1.0, 429, "id", Usage(1, 1), "0.1", "why", "body", True),
)


def test_every_kind_and_member_is_on_the_page() -> None:
    named = {"v", "kind", "origin", "seq", "sha256"}
    found = [orjson.loads(encode_event(event, NAME)) for event in FULL]
    assert {each["kind"] for each in found} == EVENT_KINDS
    for each in found:
        assert f"### `{each['kind']}`" in PAGE
        assert [member for member in each.keys() - named if f"| `{member}` |" not in PAGE] == []
