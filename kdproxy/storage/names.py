"""The names of the index's rows, and its sums. `sample_row.py` has the rows of samples."""

import struct
from dataclasses import dataclass, field

import orjson

from kdproxy.core.models import Address, Entry, LineName, Prompt, Record, Seat, Tombstone
from kdproxy.core.ports import Location

_LOCATION = struct.Struct(">IQI")
LOCATION_BYTES = _LOCATION.size
COUNTERS = "counters/2"
OLD_WATERMARK = "watermark"
"""The row that identifies an index of format 1, whose rows cannot be used: it is rebuilt from the journal."""
LEADING = ("m/", "o/", "s/", "w/")
"""Prefixes of the rows that point to lines: prompts, other kinds, samples, ends of generations."""
KNOWN = b"1"
"""Value of a response id's row: only its presence counts."""


def sample_name(address: Address) -> str:
    """Name of a sample's row. Ordinals sort as text."""
    namespace, key, ordinal = address
    return f"s/{namespace}/{key}/{ordinal:016x}"


def samples_prefix(namespace: str, key_start: str) -> str:
    """Beginning of the names of a question's samples, from the first digits of its key."""
    return f"s/{namespace}/{key_start}"


def ordinal_of(sample: str) -> int:
    """Return the ordinal in a sample's name."""
    return int(sample[-16:], 16)


def prompt_name(namespace: str, match_key: str, ordinal: int) -> str:
    """Name of a recorded prompt's row."""
    return f"m/{namespace}/{match_key}/{ordinal:016x}"


def response_name(namespace: str, response_id: str) -> str:
    """Name of a provider's response id, for `previous_response_id`."""
    return f"r/{namespace}/{response_id}"


def ended_name(name: LineName) -> str:
    """Name of the row that marks a generation as ended and points to the line that ended it."""
    return f"w/{name.origin}/{name.seq}"


def other_name(name: LineName) -> str:
    """Name of the row of a line that is no answer: a writer's start, a kind of a later release."""
    return f"o/{name}"


def row_of(record: Record) -> str | None:
    """Name of the sample's row that a record changes; None for what belongs to no sample."""
    match record:
        case Prompt():
            return prompt_name(record.namespace, record.match_key, record.ordinal)
        case Entry() | Seat():
            return sample_name(record.address)
        case Tombstone(kind="prompt"):
            return prompt_name(record.namespace, record.key, record.ordinal)
        case Tombstone():
            return sample_name(Address(record.namespace, record.key, record.ordinal))
        case _:
            return None


def pack(location: Location) -> bytes:
    """Write a location: 16 bytes, big-endian segment, offset, length."""
    return _LOCATION.pack(*location)


def unpack(value: bytes) -> Location:
    """Read a location."""
    return Location(*_LOCATION.unpack(value))


@dataclass(slots=True)
class Counters:
    """Sums over the index, stored with it so that they do not have to be read from the journal."""

    answers: dict[str, int] = field(default_factory=dict)
    """Live recordings by upstream."""
    prompts: int = 0
    old_keys: int = 0
    """Live generations whose key is of version 1."""

    @classmethod
    def load(cls, value: bytes | None) -> "Counters":
        """Read stored sums; None means all zero."""
        if value is None:
            return cls()
        members = orjson.loads(value)
        return cls(answers=members["answers"], prompts=members["prompts"], old_keys=members["old_keys"])

    @property
    def total(self) -> int:
        """Recordings and recorded prompts."""
        return sum(self.answers.values()) + self.prompts

    def copy(self) -> "Counters":
        """Return an independent copy."""
        return Counters(answers=dict(self.answers), prompts=self.prompts, old_keys=self.old_keys)

    def dump(self) -> bytes:
        """Write the sums."""
        return orjson.dumps({"answers": self.answers, "prompts": self.prompts, "old_keys": self.old_keys})

    def add(self, record: Record, count: int = 1) -> None:
        """Count a record that was added (1) or removed (-1)."""
        if isinstance(record, Prompt):
            self.prompts += count
        elif isinstance(record, Entry):
            self.answers[record.upstream] = self.answers.get(record.upstream, 0) + count
