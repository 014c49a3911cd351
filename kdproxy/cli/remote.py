"""Runs jobs in the proxy that owns the data directory, through its own API; the lock file has its address and token."""

import http.client
from collections.abc import Iterator
from dataclasses import asdict
from urllib.parse import urlsplit

import orjson

from kdproxy.errors import KdproxyError
from kdproxy.ops import job, wire
from kdproxy.ops.event import Events, Result
from kdproxy.web.api import PREFIX

_SILENCE_SECONDS = 300.0
"""Longest silence of the proxy: a job reports its progress many times a second."""
_READ_BYTES = 1 << 20


class RemoteJobRunner:
    """Runs jobs in a running proxy."""

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._token = token

    def start(self, arguments: job.Arguments) -> Events:
        """Start a job; it stops if its events are not read to the end. Raises KdproxyError."""
        parts = urlsplit(self._address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_SILENCE_SECONDS)
        try:
            connection.request(
                "POST",
                PREFIX + job.name_of(arguments),
                body=orjson.dumps(asdict(arguments)),
                headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            )
            response = connection.getresponse()
            if response.status != 200:
                raise _refusal(response.read(), response.status)
            for line in _lines(response):
                event = wire.load(line)
                yield event
                if isinstance(event, Result):
                    return
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(type(error).__name__) from error
        except ValueError as error:
            raise self._broken("not an event") from error
        finally:
            connection.close()
        raise self._broken("no result")

    def _broken(self, what: str) -> KdproxyError:
        return KdproxyError(
            f"The proxy at {self._address}, which owns the data directory, did not finish the job ({what}).",
            hint="Check the proxy's log; if the proxy has exited, run this command again.",
            code="owner_unreachable",
        )


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    pending = b""
    while chunk := response.read1(_READ_BYTES):
        *whole, pending = (pending + chunk).split(b"\n")
        yield from whole


def _refusal(body: bytes, status: int) -> KdproxyError:
    try:
        match orjson.loads(body):
            case {"error": {"message": str(message), "code": str(code)}}:
                text, _, hint = message.removeprefix("kdproxy: ").partition(" Hint: ")
                return KdproxyError(text, hint=hint, code=code)
    except orjson.JSONDecodeError:
        pass
    return KdproxyError(
        f"The proxy that owns the data directory refused the job (status {status}).",
        hint="Use the kdproxy command of the same release as the proxy.",
        code="job_refused",
    )
