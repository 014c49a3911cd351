"""Turns a failed call into an UpstreamFailed: the only module that words causes. It quotes nothing of the request."""

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
    "connect": ("The connection to the upstream was not established", "connect_seconds"),
    "first_byte": ("The upstream did not begin to answer", "first_byte_seconds"),
    "between_bytes": ("The upstream sent no more bytes of its unfinished answer", "read_seconds"),
    "total": ("The call to the upstream did not end", "total_seconds"),
}
"""By deadline: what did not happen in time, and the setting that bounds it."""

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""OpenSSL's reasons for a peer whose first bytes are not a TLS record."""

_BAD_TIMES = frozenset({9, 10})
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


class Past(Protocol):
    """What has worked since the start. A server that was reached before is down for a while, not mistyped."""

    def has_resolved(self, host: str) -> bool:
        """Whether DNS has resolved a name."""

    def has_connected(self, host: str, port: int | None) -> bool:
        """Whether a connection has succeeded."""


def too_late(deadline: str, seconds: float, *, was_sent: bool) -> UpstreamFailed:
    """Return the failure for a deadline that has passed."""
    what, setting = _DEADLINES[deadline]
    return UpstreamFailed(
        f"{what} within {seconds:g} s ({setting}).",
        hint=f"Check the upstream, or raise {setting}.",
        code=f"{deadline}_timeout",
        was_sent=was_sent,
    )


def shortage() -> KdproxyError:
    """Return the error for a machine out of file descriptors or ports. No circuit breaker opens for it."""
    return KdproxyError(
        "This machine is out of file descriptors or ports for connections to the upstream.",
        hint="Nothing was sent, so nothing is billed. Raise the limit of open files (ulimit -n) for kdproxy, or use "
        "fewer concurrent callers.",
        code="out_of_files",
        http_status=503,
        retryable=True,
        retry_after_seconds=2.0,
    )


def unsent(error: BaseException | None, connect_seconds: float, past: Past) -> UpstreamFailed:
    """Return the failure for a request of which no byte was sent.

    Permanent causes are not retried: a name that does not exist, an untrusted certificate, a port that does not speak
    TLS. A name or port that worked before, and a name that DNS cannot look up now, are temporary and are retried.
    """
    match error:
        case aiohttp.ClientConnectorDNSError() if not past.has_resolved(error.host) and is_unknown_name(
            error.host, error.os_error
        ):
            return _unknown(error)
        case aiohttp.InvalidURL():
            return UpstreamFailed(
                "The host in the upstream's URL is neither a valid name nor a valid address.",
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
                "The upstream sends bytes before any request, so its answers could not be recognised.",
                hint="Nothing was sent, so nothing is billed. Check the upstream's address and port: it may not be an "
                "HTTP server.",
                code="stray_response",
                was_sent=False,
            )
        case _:
            return _failed("The upstream could not be reached", error, was_sent=False)


def broken(error: BaseException) -> UpstreamFailed:
    """Return the failure for a request that was sent and got no answer head."""
    match error:
        case SpeaksTls():
            return UpstreamFailed(
                "The upstream speaks TLS, but its URL begins with http.",
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
                "The upstream answered before it had the request: the answer belongs to another request and was "
                "dropped.",
                hint="A gateway in front of the upstream mixes up answers: find and fix the faulty one.",
                code="stray_response",
                was_sent=True,
            )
        case _:
            return _failed("The upstream closed the connection before it answered", error, was_sent=True)


def cut(error: BaseException) -> UpstreamFailed:
    """Return the failure for an answer that had begun."""
    if isinstance(error, BadFraming):
        return _unreadable(error)
    return _failed("The upstream cut its answer", error, was_sent=True)


def end_missing() -> UpstreamFailed:
    """Return the failure for a chunked body that ended between two chunks: only its content shows if it is whole."""
    return UpstreamFailed(
        "The upstream cut its answer (it closed the connection without the last chunk).",
        hint="If every answer ends this way, the server or a gateway in front of it leaves out the last chunk "
        "(RFC 9112 section 7.1): update or bypass it.",
        code="end_missing",
        was_sent=True,
    )


def redirected(status: int, url: str, location: str) -> UpstreamFailed:
    """Return the failure for a redirect: a client that followed it would bypass the proxy and pay again."""
    asked = URL(url, encoded=True)
    try:
        # Without query, fragment and user: they may hold a credential, as the request's own query does.
        place = str(asked.join(URL(location)).with_user(None).with_query(None).with_fragment(None))
    except ValueError:
        place = "an invalid URL"
    return UpstreamFailed(
        f"The upstream answers {status} and redirects to {place}. The redirect is not passed on: "
        "a client that followed it would bypass the proxy.",
        hint="Set the upstream's url to the new place (often https instead of http, or another path).",
        code="upstream_redirects",
        was_sent=True,
        retryable=False,
        maybe_billed=False,
    )


def _unreadable(error: BadFraming) -> UpstreamFailed:
    return UpstreamFailed(
        f"The upstream's answer cannot be read: {error}.",
        hint="The call may have been billed. It is not repeated, since the next answer would look the same. "
        "Check the server or the gateway in front of it.",
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
    """Return the cause in our own words: the text of an aiohttp error can hold a URL with a credential."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            is_unknown = is_unknown_name(error.host, error.os_error)
            return f"its name {error.host} " + (_UNKNOWN if is_unknown else "cannot be resolved: DNS does not answer")
        case aiohttp.ClientConnectorSSLError():
            return f"TLS: {_of_tls(error.os_error)}"
        case aiohttp.ClientProxyConnectionError():
            return f"the environment's proxy: {_of_system(error.os_error)}"
        case TunnelRefused():
            return f"the environment's proxy refused the tunnel: {error}"
        case aiohttp.ClientConnectorError():
            return _of_system(error.os_error)
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection"
        case CutOff():
            return "it closed the connection" if error.__cause__ is None else _cause(error.__cause__)
        case EOFError():
            return "the compressed body is incomplete"
        case zlib.error():
            return "the compressed body is damaged"
        case HeadTooLate() | None:
            return "no reason given"
        case OSError():
            return _of_system(error)
        case _:
            return type(error).__name__


def _of_system(error: OSError) -> str:
    # Several addresses of one name: the combined text is long, so use the number of one error.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else type(error).__name__


def _of_tls(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return str(reason or type(error).__name__).replace("_", " ").lower()


_UNKNOWN = "is not known to DNS"


def _unknown(error: aiohttp.ClientConnectorDNSError) -> UpstreamFailed:
    return UpstreamFailed(
        f"The upstream could not be reached (its name {error.host} {_UNKNOWN}).",
        hint="Nothing was sent, so nothing is billed. Check the spelling of the host in --upstream (or in HTTPS_PROXY, "
        "if it is used). A name that only a VPN or a web proxy knows needs that VPN or proxy (use_environment_proxy).",
        code="upstream_name_unknown",
        was_sent=False,
        retryable=False,
    )


def _not_tls(error: aiohttp.ClientConnectorSSLError) -> UpstreamFailed:
    place = f"{error.host}:{error.port}"
    return UpstreamFailed(
        f"The upstream at {place} does not speak TLS, but its URL begins with https (TLS: {_of_tls(error.os_error)}).",
        hint=f"Nothing was sent, so nothing is billed. If it is your own server: --upstream http://{place}.",
        code="upstream_not_tls",
        was_sent=False,
        retryable=False,
    )


def _untrusted(error: aiohttp.ClientConnectorCertificateError) -> UpstreamFailed:
    found = error.certificate_error
    is_checked = isinstance(found, ssl.SSLCertVerificationError)
    why = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else type(found).__name__
    clock = (
        "Check this machine's clock first: the certificate is not valid at this time. "
        if (is_checked and getattr(found, "verify_code", 0) in _BAD_TIMES)
        else ""
    )
    return UpstreamFailed(
        f"The certificate of the upstream {error.host} is not trusted ({why.rstrip('.')}).",
        hint=f"Nothing was sent, so nothing is billed. {clock}If the certificate is your own, or that of a proxy that "
        "inspects TLS in your network, set SSL_CERT_FILE to the certificate of its issuer and restart kdproxy.",
        code="upstream_untrusted",
        was_sent=False,
        retryable=False,
    )
