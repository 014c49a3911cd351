"""What went wrong with a call, in words that hold nothing of the request: the one place that names causes."""

import os
import ssl
import zlib

import aiohttp
from yarl import URL

from kdproxy.errors import KdproxyError, UpstreamFailed
from kdproxy.upstream.connection import CutOff, StrayResponse
from kdproxy.upstream.connector import TunnelRefused
from kdproxy.upstream.exchange import HeadTooLate, SpokeFirst
from kdproxy.upstream.framing import BadFraming

_DEADLINES = {
    "connect": ("No connection to the upstream came about", "connect_seconds"),
    "first_byte": ("The upstream did not begin to answer", "first_byte_seconds"),
    "between_bytes": ("The upstream fell silent in the middle of its answer", "read_seconds"),
    "total": ("The call to the upstream was not over", "total_seconds"),
}
"""What struck, and the setting that it is."""


def too_late(deadline: str, seconds: float, *, was_sent: bool) -> UpstreamFailed:
    """A deadline has passed."""
    what, setting = _DEADLINES[deadline]
    return UpstreamFailed(
        f"{what} within {seconds:g} s ({setting}).",
        hint=f"Look at the upstream, or raise {setting}.",
        code=f"{deadline}_timeout",
        was_sent=was_sent,
    )


def shortage() -> KdproxyError:
    """No file for another connection, and none has become free. Not the upstream's failure: no breaker opens."""
    return KdproxyError(
        "This machine has no file descriptor or port left for another connection to the upstream.",
        hint="Raise the limit of open files (ulimit -n) for kdproxy, or ask with fewer callers at once.",
        code="out_of_files",
        http_status=503,
        retryable=True,
        retry_after_seconds=2.0,
    )


def unsent(error: BaseException | None, connect_seconds: float) -> UpstreamFailed:
    """No byte of the request went out."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return too_late("connect", connect_seconds, was_sent=False)
        case aiohttp.ClientConnectorCertificateError():
            return _untrusted(error)
        case SpokeFirst():
            return UpstreamFailed(
                "The upstream speaks before it is asked, so that no answer could be told from it.",
                hint="Check the upstream's address and port: this may be no HTTP server.",
                code="stray_response",
                was_sent=False,
            )
        case _:
            return _failed("The upstream could not be reached", error, was_sent=False)


def broken(error: BaseException) -> UpstreamFailed:
    """The request went out, and no head of an answer came."""
    match error:
        case BadFraming():
            return _unreadable(error)
        case StrayResponse():
            return UpstreamFailed(
                "The upstream answered before it had the request: the answer is another question's and was dropped.",
                hint="The gateway before the upstream mixes up answers; look for a faulty one.",
                code="stray_response",
                was_sent=True,
            )
        case _:
            return _failed("The upstream broke off before it answered", error, was_sent=True)


def cut(error: BaseException) -> UpstreamFailed:
    """The answer had begun."""
    if isinstance(error, BadFraming):
        return _unreadable(error)
    return _failed("The upstream cut its answer", error, was_sent=True)


def end_missing() -> UpstreamFailed:
    """A chunked body whose connection was closed in order between two chunks: what it holds says if it is whole."""
    return UpstreamFailed(
        "The upstream cut its answer (it closed the connection without the mark that ends it).",
        hint="If every answer ends so, the server or a gateway before it leaves out the last chunk "
        "(RFC 9112 section 7.1): update or bypass it.",
        code="end_missing",
        was_sent=True,
    )


def redirected(status: int, url: str, location: str) -> UpstreamFailed:
    """It sends the client elsewhere: a client that followed would ask the provider past the proxy, and pay again."""
    asked = URL(url, encoded=True)
    try:
        # Without query, fragment and user: they may hold a credential, as the request's own query does.
        place = str(asked.join(URL(location)).with_user(None).with_query(None).with_fragment(None))
    except ValueError:
        place = "somewhere that is no URL"
    return UpstreamFailed(
        f"The upstream answers {status} and sends to {place}, which is not passed on: "
        "a client that followed would go past the proxy.",
        hint="Set the upstream's url to where it moved (often https in place of http, or another path).",
        code="upstream_redirects",
        was_sent=True,
        retryable=False,
        maybe_billed=False,
    )


def _unreadable(error: BadFraming) -> UpstreamFailed:
    return UpstreamFailed(
        f"The upstream's answer cannot be read: {error}.",
        hint="The call may have been billed and is not repeated, since the answer to it would look the same. "
        "Look at the server or the gateway before it.",
        code="bad_framing",
        was_sent=True,
        retryable=False,
    )


def _failed(what: str, error: BaseException | None, *, was_sent: bool) -> UpstreamFailed:
    return UpstreamFailed(
        f"{what} ({_cause(error)}).",
        hint="Check the upstream's address and the network; the call is tried again until the deadline.",
        was_sent=was_sent,
    )


def _cause(error: BaseException | None) -> str:
    """Say why, in words that hold nothing of the request: an aiohttp error's own can hold a URL with a credential."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"its name {error.host} is not known to DNS"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS: {_of_tls(error.os_error)}"
        case aiohttp.ClientProxyConnectionError():
            return f"the environment's proxy: {_of_system(error.os_error)}"
        case TunnelRefused():
            return f"the environment's proxy opens no way: {error}"
        case aiohttp.ClientConnectorError():
            return _of_system(error.os_error)
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection"
        case CutOff():
            return "it closed the connection" if error.__cause__ is None else _cause(error.__cause__)
        case EOFError():
            return "the body ended before its end"
        case zlib.error():
            return "the body's compression is broken"
        case HeadTooLate() | None:
            return "no reason given"
        case OSError():
            return _of_system(error)
        case _:
            return type(error).__name__


def _of_system(error: OSError) -> str:
    # Several addresses of one name: the text of all is long, the number is that of one.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else type(error).__name__


def _of_tls(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return str(reason or type(error).__name__).replace("_", " ").lower()


def _untrusted(error: aiohttp.ClientConnectorCertificateError) -> UpstreamFailed:
    found = error.certificate_error
    why = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else type(found).__name__
    return UpstreamFailed(
        f"The certificate of the upstream {error.host} is not trusted ({why.rstrip('.')}).",
        hint="If it is your own, set SSL_CERT_FILE to the certificate of who signed it and start kdproxy again.",
        code="upstream_untrusted",
        was_sent=False,
        retryable=False,
    )
