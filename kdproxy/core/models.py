"""Frozen data types shared by all floors. They have no behaviour beyond reading their own fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from kdproxy.core.ignore import Ignore

Headers = Mapping[str, str]
"""Request headers; look-up is case-insensitive (aiohttp's `CIMultiDict` or its proxy)."""

HeaderPairs = tuple[tuple[str, str], ...]
"""Response headers in wire order, repeated names kept."""

DEFAULT_NAMESPACE = "default"


class Form(StrEnum):
    """How a sample was recorded: one recording per form, replayed byte for byte."""

    JSON = "json"
    SSE = "sse"
    BINARY = "binary"


class Usage(NamedTuple):
    """Tokens by the classes that the provider reports and bills separately; None: not reported.

    `input_tokens` counts all input including cached tokens (OpenAI's convention; Anthropic's provider module adds its
    two cache counters), `output_tokens` all output including reasoning. The other counts are parts of these two.
    Version 1 of the journal has the first four.
    """

    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    """The part of `cache_write_tokens` that is cached for an hour (Anthropic)."""
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    tier: str | None = None
    """The tier that served it, in lower case; the standard tier is `standard` for every provider; None: unknown."""
    told_usd: str | None = None
    """The cost that the answer itself states, in US dollars, as decimal text. Some sellers report it there."""
    unpriced: str | None = None
    """Why no cost follows from its tokens: something else is billed, or the counts contradict each other."""


class Upstream(NamedTuple):
    """A configured teacher API. `name` is part of every key; `url` is the base URL as for the provider's SDK."""

    name: str
    url: str
    provider: str | None = None
    """Dialect forced by the configuration; None: detected from the path of each request."""
    end: str = "finish"
    """What proves that an answer ended: `finish`: finish reasons; `done`: `[DONE]` is enough."""
    choices: str = "as-asked"
    """How many choices, rows and vectors make a whole answer: `as-asked`, or `as-served`."""
    keep_empty: bool = False
    """Whether empty answers are stored."""
    billed: bool | None = None
    """Whether its calls cost money; None: yes, unless its server is recognised as self-hosted."""
    key_headers: tuple[str, ...] = ()
    """Names, in lower case, of request headers that are added to the key."""
    ignore: tuple[Ignore, ...] = ()
    """Rules for texts that are left out of the key."""


class Turn(NamedTuple):
    """One message of a text-only conversation."""

    role: str
    text: str


class LineName(NamedTuple):
    """Name of a journal line, independent of its place: the writer's process (its origin) and a number.

    A line of version 1 is named by the first 24 hex digits of its checksum, and 0.
    """

    origin: str
    """24 hex digits."""
    seq: int

    def __str__(self) -> str:
        return f"{self.origin}/{self.seq}"


class Address(NamedTuple):
    """Address of a sample: namespace, key and ordinal."""

    namespace: str
    key: str
    ordinal: int = 0


class Question(NamedTuple):
    """What is known about a cacheable request before the look-up."""

    key: str
    """SHA-256 of the canonical request, hex."""
    form: Form
    """The form that the client asks for."""
    provider: str
    endpoint: str
    """Name of the endpoint within its provider, such as `chat.completions`."""
    model: str | None
    is_sampled: bool
    """Whether a second call would give another answer (temperature is not 0)."""
    wants_stream_usage: bool = False
    """OpenAI `stream_options.include_usage`."""
    stream_options: Mapping[str, Any] | None = None
    choices: int | None = 1
    """How many answers one call returns (OpenAI `n`, Gemini `candidateCount`; rows of embeddings); None: not known."""
    previous_response_id: str | None = None
    wants_copy: bool | None = None
    """Whether the provider keeps a copy of the answer (`store`), to be fetched or continued; None: not stated."""
    ignored: tuple[str, ...] = ()
    """Positions where the upstream's `ignore` rules removed text from the key."""


class Answer(NamedTuple):
    """A complete recording of the upstream's answer: its bytes, and the headers worth keeping."""

    status: int
    headers: HeaderPairs
    body: bytes
    form: Form
    usage: Usage | None = None
    stream_options: Mapping[str, Any] | None = None
    """`stream_options` of the recorded call; used by replay only."""
    has_copy: bool | None = None
    """Whether the provider was asked to keep a copy (`store`); None: not stated."""
    asked_form: Form | None = None
    """The form that was asked for, if the upstream answered in another."""


class Entry(NamedTuple):
    """One stored answer with its request: an `answer` line of the journal."""

    address: Address
    upstream: str
    provider: str
    endpoint: str
    method: str
    path: str
    query: str
    request_headers: HeaderPairs
    request: bytes | None
    """The request body as JSON text on one line; None if it was not JSON (multipart)."""
    prompt_hash: str | None
    model: str | None
    answer: Answer
    cost_usd: str | None
    created_at: float
    elapsed_seconds: float | None
    response_id: str | None = None
    key_version: int | None = None
    """Version of the key in the address; None: this release's version."""
    finish: tuple[str | None, ...] | None = None
    """The provider's finish reason of each choice."""
    refusal: str | None = None
    """The provider's reason for a refusal."""
    price: str | None = None
    """Row of the price table behind `cost_usd`."""
    billed: str | None = None
    """`yes`, `no` or `free`."""
    attempts: int | None = None
    """Number of calls made for it, including the successful one."""
    store: bool | None = None
    """Whether the provider was asked to store it."""
    credential: str | None = None
    """Fingerprint of the credential, made with the data directory's secret."""
    call: str | None = None
    """Name of the call's `sent` event."""
    generation: LineName | None = None
    """The generation that this is a recording of; None: a new generation, named by this line."""
    replaces: tuple[LineName, ...] = ()
    """Generations that it supersedes, in every form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt and its answer without the full request: a `prompt` line of the journal."""

    namespace: str
    match_key: str
    ordinal: int
    model: str
    turns: tuple[Turn, ...]
    response: str
    prompt_hash: str
    created_at: float
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """An answer removed by `forget`: a `tombstone` line. Its line stays in the journal; the index drops it."""

    namespace: str
    key: str
    ordinal: int
    kind: str
    """`answer` or `prompt`: the kind of line that is removed."""
    reason: str
    created_at: float
    withdraws: tuple[LineName, ...] = ()
    """The generations, or prompt lines, that it removes; in version 1 all before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A further address of a generation: a `seat` line of the journal."""

    address: Address
    key_version: int
    generation: LineName
    home: Address
    """The address of the generation's own lines."""
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first line that a writer's process leaves in a journal."""

    created_at: float
    release: str
    """Version of kdproxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A line of a kind that this release does not know: it is kept and copied, never served."""

    kind: str
    created_at: float


Record = Entry | Prompt | Tombstone | Seat | Start | Other


class NamedRecord(NamedTuple):
    """The record of a journal line, with its name and record version."""

    record: Record
    name: LineName
    version: int


class Disposition(StrEnum):
    """How a request ended; the closed set that logs and counters use."""

    HIT = "hit"
    PROMPT_HIT = "prompt_hit"
    MISS = "miss"
    JOINED = "joined"
    BYPASS = "bypass"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(slots=True, kw_only=True, eq=False)
class Outcome:
    """The outcome of one request, passed to observers once, at its end. Not frozen: that costs 2 us per hit."""

    disposition: Disposition
    method: str
    path: str
    upstream: str | None
    status: int
    elapsed_seconds: float
    model: str | None = None
    key: str | None = None
    attempts: int = 0
    stored: bool = False
    bytes_out: int = 0
    usage: Usage | None = field(default=None)
    error: str | None = None
    reason: str | None = None
    """What went wrong at the upstream, if it failed."""
