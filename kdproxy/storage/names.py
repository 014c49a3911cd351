"""What the index holds: its names, and the locations and sums that are their values."""

import struct
from dataclasses import dataclass, field

import orjson

from kdproxy.core.models import Address, Entry, Form, Prompt, Tombstone
from kdproxy.core.ports import Location

_LOCATION = struct.Struct(">IQI")
COUNTERS = "counters"


def answer_name(address: Address, form: Form) -> str:
    """Name of one recording of one sample."""
    return f"a/{address.namespace}/{address.key}/{address.ordinal}/{form}"


def prompt_name(namespace: str, match_key: str, ordinal: int) -> str:
    """Name of one recorded prompt."""
    return f"p/{namespace}/{match_key}/{ordinal}"


def response_name(namespace: str, response_id: str) -> str:
    """Name of a provider's response id, for `previous_response_id`."""
    return f"r/{namespace}/{response_id}"


def withdrawn_names(tombstone: Tombstone) -> list[str]:
    """Names that a tombstone takes out of the index."""
    if tombstone.kind == "prompt":
        return [prompt_name(tombstone.namespace, tombstone.key, tombstone.ordinal)]
    address = Address(namespace=tombstone.namespace, key=tombstone.key, ordinal=tombstone.ordinal)
    return [answer_name(address, form) for form in Form]


def name_of(record: Entry | Prompt) -> str:
    """Name under which a record is found."""
    if isinstance(record, Prompt):
        return prompt_name(record.namespace, record.match_key, record.ordinal)
    return answer_name(record.address, record.answer.form)


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

    def copy(self) -> "Counters":
        """Return sums that can be changed apart."""
        return Counters(answers=dict(self.answers), prompts=self.prompts)

    def dump(self) -> bytes:
        """Write the sums."""
        return orjson.dumps({"answers": self.answers, "prompts": self.prompts})

    def add(self, record: Entry | Prompt, count: int = 1) -> None:
        """Count a record that appears (1) or goes (-1)."""
        if isinstance(record, Prompt):
            self.prompts += count
        else:
            self.answers[record.upstream] = self.answers.get(record.upstream, 0) + count
