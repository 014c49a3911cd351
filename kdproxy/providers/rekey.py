"""What a stored answer's key would be today, made from what its journal line says of the request.

Only where that is certain: the line must still give the key that it has. Not so where the query held members that are
stored as stars, where the request was a form, or where its endpoint is no question any more.
"""

from kdproxy.core.models import Entry, Upstream
from kdproxy.providers.base import NotAQuestion
from kdproxy.providers.question import Asking, endpoint_named, read, v1_key


def v2_key_of(entry: Entry, upstream: Upstream | None = None) -> str | None:
    """Return the current key of an entry whose key is of version 1; None where nobody can know it.

    Args:
        entry: as its line says.
        upstream: as it is configured, for the headers and texts that its settings put into or leave out of the key.
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
