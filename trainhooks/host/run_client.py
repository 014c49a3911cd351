"""Asks kdproxy for the cursor of a run, and puts the run back to one. docs/samples.md has the rules.

Found by the environment: `KDPROXY_RUN_URL` and `KDPROXY_TOKEN`. Without them nothing is imported and nothing is asked.
"""

import json
import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from trainhooks.core import cursor as cursors
from trainhooks.core.cursor import Cursor
from trainhooks.errors import ConfigInvalid, RunUnavailable

if TYPE_CHECKING:
    from http.client import HTTPConnection

RUN_URL = "KDPROXY_RUN_URL"
TOKEN = "KDPROXY_TOKEN"  # noqa: S105 - the name of a variable
TIMEOUT_SECONDS = 10.0
START_SECONDS = 10.0
"""How long a resume waits for a proxy that is started at the same time."""
_BETWEEN_SECONDS = 0.1
_NOT_OPENED = frozenset({"unknown_run", "unknown_attempt"})
_RUN = re.compile(r"/runs/([^/]+)(?:/attempts/([^/]+))?")


class RunClient:
    """One run of a kdproxy. Each process opens a connection of its own, and keeps it."""

    def __init__(self, url: str, token: str) -> None:
        """Take `KDPROXY_RUN_URL` and `KDPROXY_TOKEN`.

        Raises:
            ConfigInvalid: the URL names no run, or the token is missing.
        """
        parts = urlsplit(url)
        found = _RUN.search(parts.path)
        if parts.scheme not in ("http", "https") or parts.hostname is None or found is None:
            raise ConfigInvalid(
                f"{RUN_URL} names no run of a kdproxy: {url!r}.",
                hint="It is as http://127.0.0.1:8400/runs/NAME/attempts/TOKEN; `kdproxy run` sets it.",
            )
        if not token:
            raise ConfigInvalid(
                f"{RUN_URL} is set and {TOKEN} is not, so the samples could not be resumed.",
                hint="`kdproxy run` sets both. By hand: the token is in the file kdproxy.lock of the data directory.",
            )
        name, attempt = found.groups()
        attempt = attempt or parse_qs(parts.query).get("attempt", [None])[0]
        query = "" if attempt is None else f"attempt={quote(attempt, safe='')}"
        self.run = name
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._path, self._query = f"/_kdproxy/api/runs/{name}/cursor", query
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._connection: HTTPConnection | None = None
        self._pid = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}  # a loader's worker gets a copy

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close this process's connection; the next request opens another one."""
        connection, self._connection = getattr(self, "_connection", None), None
        if connection is not None:
            connection.close()

    def cursor(self, *, is_durable: bool = True) -> Cursor:
        """Return the present moment of the attempt.

        Args:
            is_durable: wait until it is on the proxy's disk; False: the next durable one brings it there.

        Raises:
            RunUnavailable: the proxy is away, or refuses.
        """
        query = self._query if is_durable else f"{self._query}&sync=no".lstrip("&")
        status, reply = self._ask("GET", query)
        if status != 200 and _code(reply) in _NOT_OPENED:
            return Cursor()  # nothing was asked yet
        members = self._checked(status, reply)
        try:
            return cursors.read(members)
        except (TypeError, ValueError) as error:
            raise self._failed(f"sent a cursor that cannot be read ({error})") from error

    def restore(self, cursor: Cursor) -> int:
        """Put the attempt back to a cursor; return how many requests hold samples of it.

        Raises:
            RunUnavailable: the proxy is away, or refuses; then nothing was changed.
        """
        body = json.dumps(cursor.members()).encode()
        ends_at = time.monotonic() + START_SECONDS
        while True:
            try:
                status, reply = self._ask("POST", self._query, body)
                break
            except RunUnavailable:
                if time.monotonic() >= ends_at:
                    raise
                time.sleep(_BETWEEN_SECONDS)
        return int(self._checked(status, reply).get("in_flight", 0))

    def _ask(self, method: str, query: str, body: bytes | None = None) -> tuple[int, Any]:
        from http.client import HTTPException

        if self._pid != os.getpid():
            self.close()  # this process's copy: the other one uses it
            self._pid = os.getpid()
        path = f"{self._path}?{query}" if query else self._path
        while True:
            is_new = self._connection is None
            connection = self._connection = self._connection or self._connect()
            try:
                connection.request(method, path, body=body, headers=self._headers)
                response = connection.getresponse()
                text = response.read()
                return response.status, _members(text)
            except (OSError, HTTPException) as error:
                self.close()
                if is_new or isinstance(error, TimeoutError):
                    raise self._failed(f"cannot be reached ({_reason(error)})") from error

    def _connect(self) -> "HTTPConnection":
        from http.client import HTTPConnection, HTTPSConnection

        parts = urlsplit(self.address)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        return kind(str(parts.hostname), parts.port, timeout=TIMEOUT_SECONDS)

    def _checked(self, status: int, reply: Any) -> Mapping[str, Any]:
        if status == 200 and isinstance(reply, Mapping):
            return reply
        error = reply.get("error") if isinstance(reply, Mapping) else None
        message = error.get("message") if isinstance(error, Mapping) else None
        raise self._failed(f"refuses ({status}: {message or 'no reason given'})")

    def _failed(self, what: str) -> RunUnavailable:
        return RunUnavailable(
            f"The kdproxy of this run, {self.address}, {what}.",
            hint=f"Start it with the run's data directory, or unset {RUN_URL}.",
        )


def of_environment(environ: Mapping[str, str] = os.environ) -> RunClient | None:
    """Return the run that this process belongs to, or None.

    Raises:
        ConfigInvalid: the variables do not name one.
    """
    url = environ.get(RUN_URL)
    return None if not url else RunClient(url, environ.get(TOKEN, ""))


def _members(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _code(reply: Any) -> Any:
    error = reply.get("error") if isinstance(reply, Mapping) else None
    return error.get("code") if isinstance(error, Mapping) else None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
