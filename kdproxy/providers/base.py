"""What a provider module says of each endpoint that is a pure question: what is asked, and when an answer is whole."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import orjson

from kdproxy.core.models import Form, Question, Turn, Upstream, Usage
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
    choices: int | None = 1
    """Choices, rows or vectors that were asked for; None: not known."""
    wants_stream_usage: bool = False
    stream_options: Mapping[str, Any] | None = None
    previous_response_id: str | None = None


@dataclass(frozen=True, slots=True)
class NotAQuestion:
    """The request is not known to be a pure question; it passes uncached."""

    reason: str


class End(StrEnum):
    """What proves that an answer ended."""

    FINISH = "finish"
    """A finish reason for each choice, or the dialect's terminal event with a good status."""
    DONE = "done"
    """`[DONE]` or `message_stop` as well, and JSON that is whole: for servers that send no finish reasons."""


class Criteria(NamedTuple):
    """What an answer must have to be whole: what was asked for, and how its server is known to differ."""

    choices: int | None = 1
    """Choices, rows or vectors that were asked for; None: not known, or the server does not keep to it."""
    end: End = End.FINISH
    keeps_empty: bool = False
    """Whether an answer is kept in which nothing was generated and nothing is said."""
    wants_usage: bool = False
    """Whether a stream was asked for its usage."""


ONE_ANSWER = Criteria()
"""What holds where nothing else is known."""


def criteria_of(question: Question, upstream: Upstream) -> Criteria:
    """Return what an answer to a question must have, asked at an upstream with its settings."""
    return Criteria(
        choices=question.choices if upstream.choices == "as-asked" else None,
        end=End(upstream.end),
        keeps_empty=upstream.keep_empty,
        wants_usage=question.wants_stream_usage,
    )


class Complete(NamedTuple):
    """A whole answer."""

    usage: Usage | None = None
    response_id: str | None = None
    unknown_reason: str | None = None
    """A finish reason that no list has; it was taken for an end."""
    note: str | None = None
    """What is remarkable about why it counts as whole, as one word for Cache-Status."""
    finish: tuple[str | None, ...] | None = None
    """Why each choice ended, in the provider's words; None: it has no such words."""
    refusal: str | None = None
    """The provider's word, where a policy ended a choice or blocked the prompt."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Not a whole answer: never stored."""

    reason: str
    setting: str | None = None
    """The setting of the upstream under which such an answer would be kept."""
    is_empty: bool = False
    """Whether nothing was generated and nothing is said."""
    says_failed: bool = False
    """Whether its own words say that it failed: an error, or a finish reason that is one."""
    may_be_good: bool = False
    """Whether it is refused for a reason that is not its own: its length, its wrapping, or it is still under way."""

    @property
    def is_failure(self) -> bool:
        """Whether the call failed, so that it may have been billed and another one may do better."""
        return not (self.setting or self.is_empty or self.may_be_good)


CARRIES_ERROR = Broken("it carries an error", says_failed=True)
NO_JSON_EVENT = Broken("an event is no JSON object")


Judgement = Complete | Broken


class Judge(Protocol):
    """Says whether a body is a whole answer."""

    def __call__(self, body: bytes, criteria: Criteria = ONE_ANSWER, /) -> Judgement:
        """Judge it."""


class StreamJudge(Protocol):
    """Watches the events of one stream."""

    @property
    def is_over(self) -> bool:
        """Whether the dialect's own last event has come: nothing that follows can change the judgement."""

    @property
    def is_settled(self) -> bool:
        """Whether all that was asked for has ended, so that neither silence nor a cut makes it less whole."""

    @property
    def awaits_usage(self) -> bool:
        """Whether the usage that was asked for is still to come."""

    def take(self, piece: Piece) -> bool:
        """Look at an event. True: as far as is known it ends the answer, and must not reach a client before the entry
        is durable; a later event may take that back."""

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
    judge: Judge
    judge_stream: Callable[[Criteria], StreamJudge]
    """Makes a judge for one stream."""
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
    """Read a JSON object of an answer as `answer_json` does, or None. For judging alone."""
    value = answer_json(body)
    return value if isinstance(value, dict) else None


def answer_json(body: bytes) -> Any:
    """Read JSON of an answer as leniently as the clients do; None where it is no JSON.

    Taken are what orjson refuses: a byte order mark, half a surrogate pair (an emoji in two chunks), NaN and Infinity
    (log-probabilities; read as null), and bytes that are not UTF-8. Texts may hold lone surrogates.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        try:
            return _LENIENT.decode(text)
        except (ValueError, RecursionError):
            return None


_LENIENT = json.JSONDecoder(strict=False, parse_constant=lambda _: None)

_MOST_COUNTED = 2**53
"""Beyond this a count is nonsense, and sums of such would not fit a journal line's integers."""


def integer(value: Any) -> int | None:
    """Return a count if it is one."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNTED
    return value if is_count else None


def is_done(data: bytes) -> bool:
    """Whether an event's data is `[DONE]`."""
    return data.strip() == b"[DONE]"


class NoStream:
    """Judge of an endpoint that never streams: what comes as a stream is not stored."""

    is_over = False
    is_settled = False
    awaits_usage = False

    def take(self, piece: Piece) -> bool:
        """Nothing to see."""
        return False

    def finish(self) -> Judgement:
        """Refuse."""
        return Broken("this endpoint does not stream", may_be_good=True)


def no_stream(_: Criteria) -> NoStream:
    """Make the judge of an endpoint that never streams."""
    return NoStream()
