"""One entry with each member that has to be there."""

from kdproxy.core.models import Address, Answer, Entry, Form

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
