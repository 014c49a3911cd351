"""Takes credentials out of a journal line that an earlier release wrote: the request's stars, and the answer's.

The line keeps its name, its key and all else; a line that holds none, or that cannot be read, is left as it is.
"""

import orjson

from kdproxy.core import line as lines
from kdproxy.core import record as record_format
from kdproxy.core.models import Entry, NamedRecord
from kdproxy.errors import RecordInvalid
from kdproxy.providers.base import json_object
from kdproxy.providers.question import endpoint_named
from kdproxy.providers.stored import SHORTEST_SECRET, stored_request

_REQUEST = b',"request":'


def scrubbed(line: bytes) -> bytes | None:
    """Return a line without its credentials; None if it has none."""
    try:
        named = record_format.read(line)
    except RecordInvalid:
        return None
    record = named.record
    if not isinstance(record, Entry) or record.request is None:
        return None
    try:
        members = endpoint_named(record.provider, record.endpoint).members
    except KeyError:
        return None
    parsed = json_object(record.request)
    request = stored_request(members, record.request, parsed)
    if request == record.request:
        return None
    # No member before the request is an object, so the first such text is the request.
    head, _, tail = line.partition(_REQUEST + record.request)
    for secret in members.credentials(parsed):
        if len(secret) >= SHORTEST_SECRET:
            # in a header, and in a body, which is JSON within a JSON text
            for text in {_escaped(secret), _escaped(_escaped(secret).decode())}:
                tail = tail.replace(text, b"*" * len(text))
    return _sealed(head + _REQUEST + request + tail, named, is_named="origin" in lines.members_of(line))


def _sealed(line: bytes, named: NamedRecord, *, is_named: bool) -> bytes:
    """Seal a changed line again. A version 1 line was named by its checksum, so that name is written into it."""
    text = lines.unsealed(line)
    if named.version == 1 and not is_named:
        text += b',"origin":"%b","seq":%d' % (named.name.origin.encode(), named.name.seq)
    return lines.seal(text + b"}")


def _escaped(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]
