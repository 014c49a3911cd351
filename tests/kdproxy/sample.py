"""Entries for tests, and how many of them are kept at once."""

import asyncio
from collections.abc import Iterable
from typing import Any

from kdproxy.core.models import Address, Answer, Entry, Form, Record
from kdproxy.core.ports import Intent
from kdproxy.storage.archive import FileArchive

ENTRY = Entry(
    address=Address(namespace="default", key="ab" * 32, ordinal=0),
    upstream="openai",
    provider="openai",
    endpoint="chat.completions",
    method="POST",
    path="/v1/chat/completions",
    query="",
    request_headers=(),
    request=b'{"model":"m","messages":[]}',
    prompt_hash=None,
    model="m",
    answer=Answer(status=200, headers=(("Content-Type", "application/json"),), body=b'{"id":"x"}', form=Form.JSON),
    cost_usd=None,
    created_at=1790000000.25,
    elapsed_seconds=0.5,
)
"""One with each member that has to be there."""


def numbered(number: int, body: bytes = b"{}", *, form: Form = Form.JSON, **members: Any) -> Entry:
    """Make an entry whose key is a number."""
    return ENTRY._replace(
        address=Address(namespace="default", key=f"{number:064x}", ordinal=0),
        answer=Answer(status=200, headers=(), body=body, form=form),
        created_at=1790000000.0,
        elapsed_seconds=None,
        **members,
    )


def keep_all(archive: FileArchive, records: Iterable[Record], *, intent: Intent = Intent.FILL) -> None:
    """Keep records in one write, in this order."""

    async def keep() -> list[bool]:
        return await asyncio.gather(*(archive.keep(record, intent=intent) for record in records))

    assert all(asyncio.run(keep()))
