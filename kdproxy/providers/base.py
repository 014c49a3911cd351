"""Types for provider modules, which define each cacheable endpoint: how to read a request and judge an answer."""

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
    """What a request asks for."""

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
    """The request is not known to be cacheable; it passes uncached."""

    reason: str


class End(StrEnum):
    """What proves that an answer ended."""

    FINISH = "finish"
    """A finish reason for each choice, or the dialect's terminal event with a good status."""
    DONE = "done"
    """Also `[DONE]`, `message_stop` or complete JSON: for servers that send no finish reasons."""


ENDS = {end.value: end for end in End}
"""By the setting's word: a look-up takes a tenth of the time of `End(word)`."""


class Criteria(NamedTuple):
    """What a whole answer must have, by the request and by the upstream's settings."""

    choices: int | None = 1
    """Choices, rows or vectors that were requested; None: not known, or the server does not honour it."""
    end: End = End.FINISH
    keeps_empty: bool = False
    """Whether empty answers are stored."""
    wants_usage: bool = False
    """Whether the stream was requested with usage."""


ONE_ANSWER = Criteria()
"""The default criteria."""


def criteria_of(question: Question, upstream: Upstream) -> Criteria:
    """Return the criteria for an answer to a question, with the settings of its upstream."""
    return Criteria(
        choices=question.choices if upstream.choices == "as-asked" else None,
        end=ENDS[upstream.end],
        keeps_empty=upstream.keep_empty,
        wants_usage=question.wants_stream_usage,
    )


class Complete(NamedTuple):
    """A whole answer."""

    usage: Usage | None = None
    response_id: str | None = None
    unknown_reason: str | None = None
    """An unknown finish reason, which was accepted as an end."""
    note: str | None = None
    """An unusual reason why it counts as whole, as one word for Cache-Status."""
    finish: tuple[str | None, ...] | None = None
    """The finish reason of each choice; None: the dialect has none."""
    refusal: str | None = None
    """The provider's reason, if a policy ended a choice or blocked the prompt."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Not a whole answer: never stored."""

    reason: str
    setting: str | None = None
    """The upstream's setting that would allow such an answer to be stored."""
    is_empty: bool = False
    """Whether the answer is empty: no tokens were generated and it has no content."""
    says_failed: bool = False
    """Whether the answer itself says that it failed: by an error, or by a finish reason for a failure."""
    may_be_good: bool = False
    """Whether the answer itself may be good: it was rejected for its length or format, or is still in progress."""

    @property
    def is_failure(self) -> bool:
        """Whether the call failed, so that it may have been billed and a retry may succeed."""
        return not (self.setting or self.is_empty or self.may_be_good)


CARRIES_ERROR = Broken("it carries an error", says_failed=True)
NO_JSON_EVENT = Broken("an event is not a JSON object")
SECOND_ANSWER = Broken("a second answer came in the same stream")
"""Clients differ in what they make of it: both texts, the second one, an error."""


Judgement = Complete | Broken


class Judge(Protocol):
    """Judges whether a body is a whole answer."""

    def __call__(self, body: bytes, criteria: Criteria = ONE_ANSWER, /) -> Judgement:
        """Judge it."""


class StreamJudge(Protocol):
    """Judges one stream, event by event."""

    @property
    def is_over(self) -> bool:
        """Whether the dialect's last event has come: no later event can change the judgement."""

    @property
    def is_settled(self) -> bool:
        """Whether everything requested has ended, so that the answer is whole even if the stream stalls or is cut."""

    @property
    def awaits_usage(self) -> bool:
        """Whether the requested usage has not come yet."""

    def take(self, piece: Piece) -> bool:
        """Take an event. True: it probably ends the answer, and must not reach a client before the entry is durable; a
        later event may revoke that."""

    def finish(self) -> Judgement:
        """Judge the stream after its clean end."""


def no_turns(ask: Ask) -> tuple[Turn, ...] | None:
    """The default for endpoints that recorded prompts cannot answer."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One cacheable endpoint of one provider."""

    provider: str
    name: str
    path: re.Pattern[str]
    """Matched with `search`; anchored at the end of the path."""
    read: Callable[[Ask], Facts | NotAQuestion]
    judge: Judge
    judge_stream: Callable[[Criteria], StreamJudge]
    """Makes the judge of one stream."""
    members: Members = UNLISTED
    """What each member of a request means for its key."""
    stores_unasked: bool = False
    """Whether the provider keeps a copy of an answer if `store` is absent."""
    turns: Callable[[Ask], tuple[Turn, ...] | None] = no_turns
    """Reads the conversation of a request that a recorded prompt may answer: text only, and one text requested.
    Separate from `read`, since a hit does not need it."""
    takes_form: bool = False
    """Whether requests are multipart forms."""
    content_types: tuple[str, ...] = ("application/json",)
    """Prefixes of the content types of a whole, unstreamed answer."""
    key_path: Callable[[str, str], tuple[str, str]] | None = None
    """Maps path and query to those in the key, for dialects in which a streamed call has another path."""


def suffix(path: str) -> re.Pattern[str]:
    """Return a pattern for the end of a path."""
    return re.compile(re.escape(path) + "$")


def json_object(body: bytes) -> dict[str, Any] | None:
    """Parse a JSON object, or return None. Numbers may lose precision: never use it for keys."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def answer_object(body: bytes) -> dict[str, Any] | None:
    """Parse a JSON object of an answer as `answer_json` does, or return None. Use it for judging only."""
    if body[:1] != b"{" and not body.lstrip(_BEFORE_OBJECT).startswith(b"{"):
        return None  # `[DONE]`, a ping: to find out by parsing takes 20 times as long
    value = answer_json(body)
    return value if isinstance(value, dict) else None


def answer_json(body: bytes) -> Any:
    """Parse JSON of an answer as leniently as clients do; None if it is not JSON.

    It accepts what orjson refuses: a byte order mark, half a surrogate pair (an emoji split over two chunks), NaN and
    Infinity (log-probabilities; read as null), and bytes that are not UTF-8. Texts may hold lone surrogates.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        try:
            return _LENIENT.decode(text)
        except (ValueError, RecursionError):
            return None


_BEFORE_OBJECT = b" \t\r\n\xef\xbb\xbf"
_LENIENT = json.JSONDecoder(strict=False, parse_constant=lambda _: None)

_MOST_COUNTED = 2**53
"""Larger counts are invalid, and their sums would not fit the integers of a journal line."""


def integer(value: Any) -> int | None:
    """Return the value if it is a valid count, else None."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNTED
    return value if is_count else None


def is_sampled(settings: Mapping[str, Any]) -> bool:
    """Whether a second call would give another answer, by the settings of a request.

    An omitted temperature is not 0: newer models take none and are sampled. A `seed` asks for the same answer again.
    """
    is_greedy = settings.get("temperature") == 0 or settings.get("top_k") == 1 or settings.get("topK") == 1
    return not is_greedy and settings.get("seed") is None


def is_done(data: bytes) -> bool:
    """Whether an event's data is `[DONE]`."""
    return data.strip() == b"[DONE]"


class NoStream:
    """Judge of an endpoint that never streams: a stream is not stored."""

    is_over = False
    is_settled = False
    awaits_usage = False

    def take(self, piece: Piece) -> bool:
        """Ignore the event."""
        return False

    def finish(self) -> Judgement:
        """Refuse."""
        return Broken("this endpoint does not stream", may_be_good=True)


def no_stream(_: Criteria) -> NoStream:
    """Make the judge of an endpoint that never streams."""
    return NoStream()
