"""The facts in an error body, of any provider. Pure; a body that is not JSON has none."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

_TOO_LARGE = re.compile(r"Limit:? (\d+)\b.{0,80}?Requested:? (\d+)\b", re.DOTALL)
_NAMES = ("type", "code", "status", "error_code", "error_type", "reason", "limit_source")
_LONGEST_BODY = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFacts:
    """What a body says about an error."""

    is_error: bool = False
    names: frozenset[str] = frozenset()
    """Types, codes, statuses and reasons, as text."""
    message: str = ""
    retry_delay: str | None = None
    """google.rpc.RetryInfo."""
    quotas: tuple[str, ...] = ()
    """Names of violated quotas (google.rpc.QuotaFailure)."""

    @property
    def status(self) -> int | None:
        """The HTTP status that the body itself states."""
        return next(
            (int(name) for name in sorted(self.names) if len(name) == 3 and name.isdigit() and name >= "400"), None
        )

    @property
    def is_too_large(self) -> bool:
        """Whether this single request exceeds the whole limit, so that waiting cannot help."""
        match = _TOO_LARGE.search(self.message)
        return match is not None and int(match[2]) > int(match[1]) > 0

    @property
    def label(self) -> str:
        """A short name for logs: never the message, which may quote the request."""
        return ", ".join(sorted(name for name in self.names if not name.isdigit() and name != "error")[:3])


def facts_of(body: bytes) -> ErrorFacts:
    """Read the error in a body: OpenAI, Anthropic, google.rpc.Status (also in a list), Mistral, FastAPI."""
    if len(body) > _LONGEST_BODY:
        return ErrorFacts()
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ErrorFacts()
    if isinstance(members, list) and members:
        members = members[0]
    if not isinstance(members, dict):
        return ErrorFacts()
    error = members.get("error", members)
    if isinstance(error, str):
        error = {"message": error, "type": members.get("type")}
    is_error = members.get("error") is not None or "error" in (members.get("type"), members.get("object"))
    if not isinstance(error, dict):
        return ErrorFacts(is_error=is_error)
    details = list(_details(error))
    return ErrorFacts(
        is_error=is_error,
        names=frozenset(name for holder in (error, *details) for name in _names(holder)),
        message=next((text for key in ("message", "detail") if isinstance(text := error.get(key), str)), ""),
        retry_delay=next((text for each in details if isinstance(text := each.get("retryDelay"), str)), None),
        quotas=tuple(
            name
            for each in details
            for violation in _dicts(each.get("violations"))
            if isinstance(name := violation.get("quotaId"), str)
        ),
    )


def _details(error: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key in ("details", "metadata"):
        found = error.get(key)
        yield from [found] if isinstance(found, dict) else _dicts(found)


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _names(holder: dict[str, Any]) -> Iterator[str]:
    for key in _NAMES:
        value = holder.get(key)
        if isinstance(value, str) and len(value) <= 100:
            yield value
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(value)
