"""What a provider module says of each endpoint that is a pure question: what is asked, and when an answer is whole."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import orjson

from kdproxy.core.models import Form, Turn, Usage
from kdproxy.core.sse import Piece
from kdproxy.providers.member import UNLISTED, Members


class Ask(NamedTuple):
    """A request as an endpoint reads it. `members` are the JSON members, or a form's text fields."""

    path: str
    query: str
    members: Mapping[str, Any]


class Facts(NamedTuple):
    """What a request says of itself."""

    form: Form
    model: str | None
    is_sampled: bool = False
    choices: int = 1
    wants_stream_usage: bool = False
    stream_options: Mapping[str, Any] | None = None
    previous_response_id: str | None = None


@dataclass(frozen=True, slots=True)
class NotAQuestion:
    """The request is not known to be a pure question; it passes uncached."""

    reason: str


class Complete(NamedTuple):
    """A whole answer."""

    usage: Usage | None = None
    response_id: str | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """Not a whole answer: delivered, never stored."""

    reason: str


Judgement = Complete | Broken


class StreamJudge(Protocol):
    """Watches the events of one stream."""

    @property
    def is_over(self) -> bool:
        """Whether the dialect's own last event has come: nothing that follows can change the judgement."""

    def take(self, piece: Piece) -> bool:
        """Look at an event; True from the one on that must not reach a client before the entry is durable."""

    def finish(self) -> Judgement:
        """Say, at a clean end of the stream, whether it was whole."""


def no_turns(ask: Ask) -> tuple[Turn, ...] | None:
    """Of an endpoint that no recorded prompt answers."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One cacheable endpoint of one provider."""

    provider: str
    name: str
    path: re.Pattern[str]
    """Searched in the path; anchored at its end."""
    read: Callable[[Ask], Facts | NotAQuestion]
    judge: Callable[[bytes], Judgement]
    judge_stream: Callable[[int], StreamJudge]
    """Makes a judge for a stream of so many choices."""
    members: Members = UNLISTED
    """What each member of a request means for its key."""
    stores_unasked: bool = False
    """Whether the provider keeps a copy of an answer where `store` is left out."""
    turns: Callable[[Ask], tuple[Turn, ...] | None] = no_turns
    """Reads the conversation, where it is text alone and nothing beyond one text is asked: what a recorded prompt may
    answer. Apart from `read`, since a hit does not need it."""
    takes_form: bool = False
    """Whether requests are multipart forms."""
    content_types: tuple[str, ...] = ("application/json",)
    """Prefixes of the content types of a whole, unstreamed answer."""
    key_path: Callable[[str, str], tuple[str, str]] | None = None
    """Maps path and query to what the key holds, where a streamed call has a path of its own."""


def suffix(path: str) -> re.Pattern[str]:
    """Pattern of a path by its end."""
    return re.compile(re.escape(path) + "$")


def json_object(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object, or None. Lossy for numbers: for looking, never for keys."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def answer_object(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object of an answer as leniently as the clients do, or None. For judging alone.

    Taken are what orjson refuses: a byte order mark, half a surrogate pair (an emoji in two chunks), NaN and Infinity
    (log-probabilities; read as null), and bytes that are not UTF-8. Texts may hold lone surrogates.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        try:
            value = _LENIENT.decode(text)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


_LENIENT = json.JSONDecoder(strict=False, parse_constant=lambda _: None)

_MOST_COUNTED = 2**53
"""Beyond this a count is nonsense, and sums of such would not fit a journal line's integers."""


def integer(value: Any) -> int | None:
    """Return a count if it is one."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNTED
    return value if is_count else None


def has_error(members: Mapping[str, Any]) -> bool:
    """Whether a body or an event carries an error, as providers write it inside a 200."""
    return members.get("error") is not None or members.get("type") == "error"


class NoStream:
    """Judge of an endpoint that never streams: what comes as a stream is not stored."""

    is_over = False

    def take(self, piece: Piece) -> bool:
        """Nothing to see."""
        return False

    def finish(self) -> Judgement:
        """Refuse."""
        return Broken("this endpoint does not stream")


def no_stream(_: int) -> NoStream:
    """Make the judge of an endpoint that never streams."""
    return NoStream()


class TerminalEvent:
    """Judge of a stream whose last event has a type of its own."""

    def __init__(
        self,
        *,
        complete: frozenset[str],
        failed: frozenset[str],
        read: Callable[[dict[str, Any]], Complete | None],
    ) -> None:
        self._complete = complete
        self._failed = failed
        self._read = read
        self._seen = Complete()
        self._is_whole = False
        self._failure: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the last event has come."""
        return self._is_whole

    def take(self, piece: Piece) -> bool:
        """Look at an event."""
        if not piece.data or self._failure is not None:
            return False
        members = json_object(piece.data)
        if members is None:
            self._failure = None if piece.data.strip() == b"[DONE]" else "an event is not JSON"
            return self._is_whole
        name = members.get("type")
        kind = name if isinstance(name, str) else piece.event
        if kind in self._failed or has_error(members):
            self._failure = "the stream carried an error"
            return False
        self._seen = self._read(members) or self._seen
        self._is_whole = self._is_whole or kind in self._complete
        return self._is_whole

    def finish(self) -> Judgement:
        """Say whether the last event came."""
        if self._failure is not None:
            return Broken(self._failure)
        return self._seen if self._is_whole else Broken("the stream was cut")
