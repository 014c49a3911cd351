"""What the index holds: its names, and the locations and sums that are their values."""

import struct
from dataclasses import dataclass, field

import orjson

from kdproxy.core.models import Address, Entry, Form, Other, Prompt, Record, Seat, Start, Tombstone
from kdproxy.core.ports import Location

_LOCATION = struct.Struct(">IQI")
COUNTERS = "counters"
LEADING = ("a/", "o/", "p/", "t/")
"""Prefixes of the rows that lead to lines: answers, other kinds, prompts, tombstones."""
COUNTED = ("a/", "p/")
"""Prefixes of the rows that the sums count."""
KNOWN = b"1"
"""Value of a response id's row: only its presence counts."""


def answer_name(address: Address, form: Form) -> str:
    """Name of one recording of one sample."""
    return f"a/{address.namespace}/{address.key}/{address.ordinal}/{form}"


def prompt_name(namespace: str, match_key: str, ordinal: int) -> str:
    """Name of one recorded prompt."""
    return f"p/{namespace}/{match_key}/{ordinal}"


def response_name(namespace: str, response_id: str) -> str:
    """Name of a provider's response id, for `previous_response_id`."""
    return f"r/{namespace}/{response_id}"


def tombstone_name(kind: str, namespace: str, key: str, ordinal: int) -> str:
    """Name of the newest withdrawal of a sample (`answer`) or of a recorded prompt (`prompt`)."""
    return f"t/{kind}/{namespace}/{key}/{ordinal}"


def withdrawal_of(record: Record) -> str:
    """Name of the tombstone that would withdraw a record."""
    if not isinstance(record, Entry | Prompt):
        return tombstone_name("other", "", name_of(record), 0)
    if isinstance(record, Prompt):
        return tombstone_name("prompt", record.namespace, record.match_key, record.ordinal)
    address = record.address
    return tombstone_name("answer", address.namespace, address.key, address.ordinal)


def withdrawn_names(tombstone: Tombstone) -> list[str]:
    """Names that a tombstone takes out of the index."""
    if tombstone.kind == "prompt":
        return [prompt_name(tombstone.namespace, tombstone.key, tombstone.ordinal)]
    address = Address(namespace=tombstone.namespace, key=tombstone.key, ordinal=tombstone.ordinal)
    return [answer_name(address, form) for form in Form]


def name_of(record: Record) -> str:
    """Name under which a record is found."""
    match record:
        case Prompt():
            return prompt_name(record.namespace, record.match_key, record.ordinal)
        case Entry():
            return answer_name(record.address, record.answer.form)
        case Tombstone():
            return tombstone_name(record.kind, record.namespace, record.key, record.ordinal)
        case Seat() | Start() | Other():
            return f"o/{record.created_at}"


def rows_of(record: Record, location: Location) -> dict[str, bytes | None]:
    """Rows that a line at a location puts into the index; None takes one out."""
    rows: dict[str, bytes | None] = {}
    if isinstance(record, Tombstone):
        rows.update(dict.fromkeys(withdrawn_names(record)))
    rows[name_of(record)] = pack(location)
    if isinstance(record, Entry) and record.response_id is not None:
        rows[response_name(record.address.namespace, record.response_id)] = KNOWN
    return rows


def pack(location: Location) -> bytes:
    """Write a location: 16 bytes, big-endian segment, offset, length."""
    return _LOCATION.pack(location.segment, location.offset, location.length)


def unpack(value: bytes) -> Location:
    """Read a location."""
    return Location(*_LOCATION.unpack(value))


@dataclass(slots=True)
class Counters:
    """Sums over what the index holds, kept with it so that nobody has to read the journal for them."""

    answers: dict[str, int] = field(default_factory=dict)
    """Live recordings by upstream."""
    prompts: int = 0

    @classmethod
    def load(cls, value: bytes | None) -> "Counters":
        """Read stored sums; none is zero."""
        if value is None:
            return cls()
        members = orjson.loads(value)
        return cls(answers=members["answers"], prompts=members["prompts"])

    @property
    def total(self) -> int:
        """Recordings and recorded prompts."""
        return sum(self.answers.values()) + self.prompts

    def copy(self) -> "Counters":
        """Return sums that can be changed apart."""
        return Counters(answers=dict(self.answers), prompts=self.prompts)

    def dump(self) -> bytes:
        """Write the sums."""
        return orjson.dumps({"answers": self.answers, "prompts": self.prompts})

    def add(self, record: Record, count: int = 1) -> None:
        """Count a record that appears (1) or goes (-1)."""
        if isinstance(record, Prompt):
            self.prompts += count
        elif isinstance(record, Entry):
            self.answers[record.upstream] = self.answers.get(record.upstream, 0) + count
