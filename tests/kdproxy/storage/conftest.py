"""What the storage tests share: records to keep, and a small file system that can be full."""

from collections.abc import Callable

import pytest

from kdproxy.core.models import Address, Answer, Entry, Form

MakeEntry = Callable[..., Entry]


@pytest.fixture
def make_entry() -> MakeEntry:
    """Makes an entry: the k-th key with a body of its own."""

    def make(
        number: int = 0,
        *,
        body: bytes | None = None,
        form: Form = Form.JSON,
        ordinal: int = 0,
        namespace: str = "default",
        upstream: str = "openai",
        response_id: str | None = None,
    ) -> Entry:
        return Entry(
            address=Address(namespace=namespace, key=f"{number:064x}", ordinal=ordinal),
            upstream=upstream,
            provider="openai",
            endpoint="chat.completions",
            method="POST",
            path="/v1/chat/completions",
            query="",
            request_headers=(),
            request=b'{"model":"m"}',
            prompt_hash=None,
            model="m",
            answer=Answer(status=200, headers=(), body=b"answer %d" % number if body is None else body, form=form),
            cost_usd=None,
            created_at=1790000000.0,
            elapsed_seconds=None,
            response_id=response_id,
        )

    return make
