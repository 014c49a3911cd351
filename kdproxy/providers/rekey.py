"""Computes a stored answer's current key from the request in its journal line.

It does so only if the result is certain: the line must still reproduce its old key. It does not if the query has
members that are stored as stars, if the request was a form, or if its endpoint is no longer cacheable.
"""

from kdproxy.core.models import Entry, Upstream
from kdproxy.providers.base import NotAQuestion
from kdproxy.providers.question import Asking, endpoint_named, read, v1_key


def v2_key_of(entry: Entry, upstream: Upstream | None = None) -> str | None:
    """Return the current key of an entry with a version 1 key; None if it cannot be known.

    Args:
        entry: the entry, from its line.
        upstream: the configured upstream, whose settings add headers to the key and remove texts from it.
    """
    if entry.key_version != 1 or entry.request is None or entry.method != "POST":
        return None
    try:
        endpoint = endpoint_named(entry.provider, entry.endpoint)
    except KeyError:
        return None
    asking = Asking(
        upstream=upstream or Upstream(name=entry.upstream, url=""),
        path=entry.path,
        query=entry.query,
        headers=dict(entry.request_headers),
        body=entry.request,
    )
    if v1_key(endpoint, asking) != entry.address.key:
        return None
    found = read(endpoint, asking, allow_hosted_tools=True)
    return None if isinstance(found, NotAQuestion) else found.key
