"""The frozen data that every floor speaks of. No behaviour beyond reading itself."""

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
    """Tokens by the classes that the provider tells and bills apart; None where it did not say.

    `input_tokens` counts all input, cached tokens included (OpenAI's convention; Anthropic's two cache counters
    are added in by its provider module), `output_tokens` all output, reasoning included. The others are parts of these.
    Version 1 of the journal keeps the first four.
    """

    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    """Of `cache_write_tokens`, those kept for an hour (Anthropic)."""
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    tier: str | None = None
    """The tier that served it, in lower case, `standard` for each provider's word for it; None: not told."""
    told_usd: str | None = None
    """What it cost by the answer's own word, in US dollars: decimal text. Some sellers write their bill there."""
    unpriced: str | None = None
    """Why its tokens do not tell what it cost: something else is billed, or the counts contradict each other."""


class Upstream(NamedTuple):
    """A configured teacher API. `name` goes into every key; `url` is as the provider's SDK takes it."""

    name: str
    url: str
    provider: str | None = None
    """Dialect forced by the configuration; None: told from the path of each request."""
    end: str = "finish"
    """What proves that an answer ended: `finish` reasons, or `done`: `[DONE]` is enough."""
    choices: str = "as-asked"
    """How many choices, rows and vectors a whole answer has: `as-asked`, or `as-served`."""
    keep_empty: bool = False
    """Whether answers are kept in which nothing was generated and nothing is said."""
    billed: bool | None = None
    """Whether its calls cost money; None: they do, unless its server is recognised as one of one's own."""
    key_headers: tuple[str, ...] = ()
    """Names, in lower case, of request headers that are in the key beside those that always are."""
    ignore: tuple[Ignore, ...] = ()
    """Texts that the key leaves out."""


class Turn(NamedTuple):
    """One message of a conversation that is text alone."""

    role: str
    text: str


class LineName(NamedTuple):
    """Name of a journal line, wherever its bytes lie: which writer's life it comes from, and its number in it.

    A line of version 1 is named by the first 24 hex digits of its checksum, and 0.
    """

    origin: str
    """24 hex digits."""
    seq: int

    def __str__(self) -> str:
        return f"{self.origin}/{self.seq}"


class Address(NamedTuple):
    """Where a sample lives: whose it is, which question, which of its answers."""

    namespace: str
    key: str
    ordinal: int = 0


class Question(NamedTuple):
    """What is known of a cacheable request before anything is looked up."""

    key: str
    """SHA-256 of the canonical request, hex."""
    form: Form
    """The form that the client wants back."""
    provider: str
    endpoint: str
    """Name of the endpoint within its provider, such as `chat.completions`."""
    model: str | None
    is_sampled: bool
    """Whether asking again would give another answer (temperature is not 0)."""
    wants_stream_usage: bool = False
    """OpenAI `stream_options.include_usage`."""
    stream_options: Mapping[str, Any] | None = None
    choices: int | None = 1
    """How many answers one call returns (OpenAI `n`, Gemini `candidateCount`; rows of embeddings); None: not known."""
    previous_response_id: str | None = None
    wants_copy: bool | None = None
    """Whether the provider shall keep a copy of the answer (`store`), to be fetched or continued; None: not said."""
    ignored: tuple[str, ...] = ()
    """Positions where the upstream's `ignore` left text out of the key."""


class Answer(NamedTuple):
    """A complete recording of what the upstream said: the bytes, and the headers worth keeping."""

    status: int
    headers: HeaderPairs
    body: bytes
    form: Form
    usage: Usage | None = None
    stream_options: Mapping[str, Any] | None = None
    """What the recorded stream was asked with; matters to replay only."""
    has_copy: bool | None = None
    """Whether the provider was asked to keep a copy (`store`); None: the request did not say."""
    asked_form: Form | None = None
    """The form that was asked for, where the upstream gave another."""


class Entry(NamedTuple):
    """One stored answer with what produced it: an `answer` line of the journal."""

    address: Address
    upstream: str
    provider: str
    endpoint: str
    method: str
    path: str
    query: str
    request_headers: HeaderPairs
    request: bytes | None
    """The request body as JSON text on one line; None where it was not JSON (multipart)."""
    prompt_hash: str | None
    model: str | None
    answer: Answer
    cost_usd: str | None
    created_at: float
    elapsed_seconds: float | None
    response_id: str | None = None
    key_version: int | None = None
    """Version of the key in the address; None: the one of this release."""
    finish: tuple[str | None, ...] | None = None
    """Why each choice ended, in the provider's words."""
    refusal: str | None = None
    """What the provider gave as the reason of a refusal."""
    price: str | None = None
    """Row of the price table that `cost_usd` comes from."""
    billed: str | None = None
    """`yes`, `no` or `free`."""
    attempts: int | None = None
    """Calls that it took, this one included."""
    store: bool | None = None
    """Whether the provider was asked to store it."""
    credential: str | None = None
    """Fingerprint of the credential, made with the data directory's secret."""
    call: str | None = None
    """Name of the purchase event that put the call on the wire."""
    generation: LineName | None = None
    """Which generation of the sample this is a recording of; None: it names one of its own."""
    replaces: tuple[LineName, ...] = ()
    """Generations that it ends, in every form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt and its answer without a full request: a `prompt` line of the journal."""

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
    """An answer withdrawn by `forget`: a `tombstone` line. Its line stays in the journal, the index drops it."""

    namespace: str
    key: str
    ordinal: int
    kind: str
    """`answer` or `prompt`: which kind of line is withdrawn."""
    reason: str
    created_at: float
    withdraws: tuple[LineName, ...] = ()
    """The generations, or prompt lines, that it ends; in version 1 all that came before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A generation that answers at another address too: a `seat` line of the journal."""

    address: Address
    key_version: int
    generation: LineName
    home: Address
    """Where the generation's own lines are addressed."""
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first line of its own that a writer's life leaves in a journal."""

    created_at: float
    release: str
    """Version of kdproxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A line of a kind that this release does not know: kept and copied, never served."""

    kind: str
    created_at: float


Record = Entry | Prompt | Tombstone | Seat | Start | Other


class NamedRecord(NamedTuple):
    """What a journal line says, with its name and record version."""

    record: Record
    name: LineName
    version: int


class Disposition(StrEnum):
    """What became of a request; the closed set that logs and counters use."""

    HIT = "hit"
    PROMPT_HIT = "prompt_hit"
    MISS = "miss"
    JOINED = "joined"
    BYPASS = "bypass"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(slots=True, kw_only=True, eq=False)
class Outcome:
    """What happened to one request: what observers are told, once, at its end. Not frozen: that costs 2 us a hit."""

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
    """What the upstream did, where it failed."""
