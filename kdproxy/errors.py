"""Errors that a user can see. Each has a stable code, a hint (what to do now) and an HTTP status.

An error has its own class only where a caller branches on it.
"""


class KdproxyError(Exception):
    """Something went wrong that the user can act on.

    Args:
        message: what happened, in one sentence, without credentials.
        hint: what to do now.
        code: stable snake_case identifier.
        http_status: status of the reply when the error reaches a client.
        retryable: whether the same request may succeed later without a change.
        retry_after_seconds: how long to wait before a retry, if that is known.
    """

    default_code = "kdproxy_error"
    default_status = 500

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        code: str | None = None,
        http_status: int | None = None,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code
        self.http_status = http_status or self.default_status
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return f"{self.message} Hint: {self.hint}"


class ConfigError(KdproxyError):
    """The settings hold one or more mistakes; all of them are listed at once."""

    default_code = "config_invalid"

    def __init__(self, problems: list[str], *, hint: str) -> None:
        listing = "\n".join(f"  - {problem}" for problem in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"The configuration has {count}:\n{listing}\n", hint=hint)
        self.problems = problems


class DirectoryBusy(KdproxyError):
    """Another process owns the data directory; `address` is where it serves, or None."""

    default_code = "directory_busy"

    def __init__(self, message: str, *, hint: str, address: str | None) -> None:
        super().__init__(message, hint=hint)
        self.address = address


class RecordInvalid(KdproxyError):
    """A journal line cannot be read: it is damaged, torn, or of a version that this release does not know."""

    default_code = "record_invalid"


class StorageFailed(KdproxyError):
    """The disk refused a write or a read."""

    default_code = "storage_failed"
    default_status = 503


class IndexDamaged(StorageFailed):
    """The index cannot be used. It is derived from the journal, so it is rebuilt."""


class DirectoryReadOnly(StorageFailed):
    """The data directory is not writable; it may still be readable."""


class CallNotRecorded(StorageFailed):
    """A call was not sent because the events log could not be written."""

    default_code = "disk_refuses"


class UpstreamFailed(KdproxyError):
    """The upstream could not be reached, or it closed the connection before the answer was complete.

    Args:
        message: what happened and its cause; it quotes nothing of the request.
        was_sent: whether a byte of the request may have reached the server, so that the provider may bill the call;
            False after a failed DNS look-up, a refused connection or a failed TLS handshake.
        retryable: whether another attempt may succeed without a change.
        maybe_billed: whether the provider may bill the call; None: the same as `was_sent`.
    """

    default_code = "upstream_failed"
    default_status = 502

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        code: str | None = None,
        was_sent: bool,
        retryable: bool = True,
        maybe_billed: bool | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code, retryable=retryable)
        self.was_sent = was_sent
        self.maybe_billed = was_sent if maybe_billed is None else maybe_billed


class RequestRefused(KdproxyError):
    """The proxy itself refuses a request: limits, routing, modes, Host and token checks."""

    default_code = "request_refused"
    default_status = 400
