"""What went wrong with a call, in words that hold nothing of the request: the one place that names causes."""

import os
import ssl
import zlib
from typing import Protocol

import aiohttp
from yarl import URL

from kdproxy.errors import KdproxyError, UpstreamFailed
from kdproxy.upstream.connection import CutOff, StrayResponse
from kdproxy.upstream.connector import TunnelRefused
from kdproxy.upstream.exchange import HeadTooLate, SpokeFirst
from kdproxy.upstream.framing import BadFraming, SpeaksTls
from kdproxy.upstream.network import is_unknown_name

_DEADLINES = {
    "connect": ("No connection to the upstream came about", "connect_seconds"),
    "first_byte": ("The upstream did not begin to answer", "first_byte_seconds"),
    "between_bytes": ("The upstream fell silent in the middle of its answer", "read_seconds"),
    "total": ("The call to the upstream was not over", "total_seconds"),
}
"""What struck, and the setting that it is."""

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""OpenSSL's reasons for a peer whose first bytes are no TLS record."""

_BAD_TIMES = frozenset({9, 10})
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


class Past(Protocol):
    """What has worked since the start: who was reached once is away for a while, and was not mistyped."""

    def has_resolved(self, host: str) -> bool:
        """Whether DNS has known a name."""

    def has_connected(self, host: str, port: int | None) -> bool:
        """Whether a connection came about."""


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


def unsent(error: BaseException | None, connect_seconds: float, past: Past) -> UpstreamFailed:
    """No byte of the request went out.

    What no wait mends is not tried again: a name that does not exist, a certificate that is not trusted, a port that
    speaks no TLS. A name or port that worked before is away for a while, as is a name that DNS cannot look up now.
    """
    match error:
        case aiohttp.ClientConnectorDNSError() if not past.has_resolved(error.host) and is_unknown_name(
            error.host, error.os_error
        ):
            return _unknown(error)
        case aiohttp.InvalidURL():
            return UpstreamFailed(
                "The host in the upstream's URL is neither a name nor an address that a connection can be made to.",
                hint="Nothing was sent, so nothing is billed. Write an address in full (127.0.0.1, not 127.1).",
                code="upstream_name_unknown",
                was_sent=False,
                retryable=False,
            )
        case aiohttp.ClientConnectorSSLError() if (
            isinstance(error.os_error, ssl.SSLError)
            and error.os_error.reason in _NO_TLS
            and not past.has_connected(error.host, error.port)
        ):
            return _not_tls(error)
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
        case SpeaksTls():
            return UpstreamFailed(
                "The upstream speaks TLS, and its URL begins with http.",
                hint="The server could not read the call, so it is not billed. Begin the URL of --upstream with https.",
                code="upstream_speaks_tls",
                was_sent=True,
                retryable=False,
                maybe_billed=False,
            )
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
            is_unknown = is_unknown_name(error.host, error.os_error)
            return f"its name {error.host} " + (_UNKNOWN if is_unknown else "cannot be looked up: DNS does not answer")
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


_UNKNOWN = "is not known to DNS"


def _unknown(error: aiohttp.ClientConnectorDNSError) -> UpstreamFailed:
    return UpstreamFailed(
        f"The upstream could not be reached (its name {error.host} {_UNKNOWN}).",
        hint="Nothing was sent, so nothing is billed. Check how the host of --upstream (or of HTTPS_PROXY, if "
        "that is used) is spelt; a name that only a VPN or a web proxy knows needs that (use_environment_proxy).",
        code="upstream_name_unknown",
        was_sent=False,
        retryable=False,
    )


def _not_tls(error: aiohttp.ClientConnectorSSLError) -> UpstreamFailed:
    place = f"{error.host}:{error.port}"
    return UpstreamFailed(
        f"The upstream at {place} speaks no TLS, and its URL begins with https (TLS: {_of_tls(error.os_error)}).",
        hint=f"Nothing was sent, so nothing is billed. If it is a server of your own: --upstream http://{place}.",
        code="upstream_not_tls",
        was_sent=False,
        retryable=False,
    )


def _untrusted(error: aiohttp.ClientConnectorCertificateError) -> UpstreamFailed:
    found = error.certificate_error
    is_checked = isinstance(found, ssl.SSLCertVerificationError)
    why = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else type(found).__name__
    clock = (
        "Look at this machine's clock first: the certificate is good at another time. "
        if (is_checked and getattr(found, "verify_code", 0) in _BAD_TIMES)
        else ""
    )
    return UpstreamFailed(
        f"The certificate of the upstream {error.host} is not trusted ({why.rstrip('.')}).",
        hint=f"Nothing was sent, so nothing is billed. {clock}If it is your own, or your network's that reads TLS, set "
        "SSL_CERT_FILE to the certificate of who signed it and start kdproxy again.",
        code="upstream_untrusted",
        was_sent=False,
        retryable=False,
    )
