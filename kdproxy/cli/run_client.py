"""A client of the API of runs, for `kdproxy run`. Never through HTTP_PROXY: http.client does not read it."""

import http.client
from typing import Any
from urllib.parse import urlsplit

import orjson

from kdproxy.core.models import Upstream
from kdproxy.errors import KdproxyError
from kdproxy.web.run_api import PREFIX

TIMEOUT_SECONDS = 60.0
"""A run with a million events is read in this time."""


class Unreachable(KdproxyError):
    """No proxy answers there: it has exited, or it shuts down."""

    default_code = "owner_unreachable"


class RunClient:
    """Calls the proxy that owns a data directory."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self._token = token

    def upstreams(self) -> tuple[Upstream, ...]:
        """Return the proxy's upstreams."""
        return tuple(
            Upstream(name=each["name"], url=each["url"], provider=each["provider"])
            for each in self.call("GET", "")["upstreams"]
        )

    def call(self, method: str, path: str, members: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call a route.

        Raises:
            Unreachable: the proxy has exited, or shuts down.
            KdproxyError: it refuses.
        """
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(
                method,
                PREFIX + path,
                body=None if members is None else orjson.dumps(members),
                headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            )
            response = connection.getresponse()
            body = response.read()
            answer = orjson.loads(body)
        except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
            raise Unreachable(
                f"The proxy at {self.address} does not answer ({type(error).__name__}).",
                hint="Answers that were bought are stored. Check the proxy's log, then run the command again.",
            ) from error
        finally:
            connection.close()
        if response.status == 200 and isinstance(answer, dict):
            return answer
        raise _refusal(answer)


def _refusal(answer: Any) -> KdproxyError:
    match answer:
        case {"error": {"message": str(message), "code": str(code)}}:
            text, _, hint = message.removeprefix("kdproxy: ").partition(" Hint: ")
            kind = Unreachable if code == "draining" else KdproxyError
            return kind(text, hint=hint, code=code)
    return KdproxyError(
        "The proxy that owns the data directory has no API of runs.",
        hint="Use the kdproxy command of the same release as the proxy.",
        code="job_refused",
    )


def is_kdproxy(url: str) -> bool:
    """Whether a kdproxy listens at a loopback URL."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=2.0)
    try:
        connection.request("GET", "/_kdproxy/healthz")
        members = orjson.loads(connection.getresponse().read(65_536))
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError):
        return False
    finally:
        connection.close()
    return isinstance(members, dict) and "status" in members and len(members) <= 4
