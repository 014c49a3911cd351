"""The page on the events log names each member that is written."""

from pathlib import Path

import orjson

from kdproxy.core.call_event import EVENT_KINDS, Ended, Sent, encode_event
from kdproxy.core.models import Address, LineName, Usage
from kdproxy.core.run_event import Opened, Restored, Returned, RunEvent, RunRenamed, Unread, Used, encode_run_event

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats" / "events.md").read_text(encoding="utf-8")
NAME = LineName("0" * 24, 1)
FULL = (
    Sent("u", 1.0, Address("other", "k", 1), "m", "c", "r", 2, "/p", True, True),
    Ended(NAME, "refused", "no", 1.0, 1.0, 429, "id", Usage(1, 1), "0.1", "why", "body", True),
)

RUN_EVENTS: tuple[RunEvent, ...] = (
    Opened("r", "1", 1.0, NAME, "other"),
    Used(NAME, "k", 1, "s", True),
    Returned(NAME, "k", 1),
    Unread(NAME, "k", 1, 1.0, True),
    Restored(NAME, NAME, NAME, 1.0),
    RunRenamed(NAME, "r", 1.0),
)


def test_every_kind_and_member_is_on_the_page() -> None:
    named = {"v", "kind", "origin", "seq", "sha256"}
    found = [orjson.loads(encode_event(event, NAME)) for event in FULL]
    found += [orjson.loads(encode_run_event(event, NAME)) for event in RUN_EVENTS]
    assert {each["kind"] for each in found} == EVENT_KINDS
    for each in found:
        assert f"### `{each['kind']}`" in PAGE
        assert [member for member in each.keys() - named if f"| `{member}` |" not in PAGE] == []
