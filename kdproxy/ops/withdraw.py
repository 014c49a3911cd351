"""`forget`, its second half: tombstones for chosen samples. Their lines stay; the next request buys anew."""

from dataclasses import dataclass
from typing import Any

from kdproxy.core import record as record_format
from kdproxy.core.models import Tombstone
from kdproxy.core.ports import Library, RecordLine
from kdproxy.ops.context import JobContext, malformed
from kdproxy.ops.event import Events, Result
from kdproxy.ops.live import seal_of
from kdproxy.storage import names


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawArguments:
    """What `withdraw` is told."""

    samples: tuple[dict[str, Any], ...]
    """Each with `kind` (answer or prompt), `namespace`, `key`, `ordinal`, and `seals`: checksums of the lines that were
    looked at. A sample that has changed since is left alone."""
    reason: str


def withdraw(context: JobContext, arguments: WithdrawArguments) -> Events:
    """Write the tombstones."""
    library, now = context.library, context.now()
    chosen = [_read(sample, reason=arguments.reason, now=now) for sample in arguments.samples]
    written: list[RecordLine] = []

    def decide() -> list[RecordLine]:
        written.extend(
            (tombstone, record_format.encode(tombstone))
            for tombstone, seals in chosen
            if _is_unchanged(library, tombstone, seals)
        )
        return written

    library.revise(decide)
    yield Result({"withdrawn": len(written), "changed": len(arguments.samples) - len(written)})


def _read(sample: dict[str, Any], *, reason: str, now: float) -> tuple[Tombstone, frozenset[str]]:
    match sample:
        case {
            "kind": "answer" | "prompt" as kind,
            "namespace": str(namespace),
            "key": str(key),
            "ordinal": int(ordinal),
            "seals": [*seals],
        }:
            tombstone = Tombstone(
                namespace=namespace, key=key, ordinal=ordinal, kind=kind, reason=reason, created_at=now
            )
            return tombstone, frozenset(map(str, seals))
    raise malformed("a sample is not whole")


def _is_unchanged(library: Library, tombstone: Tombstone, seals: frozenset[str]) -> bool:
    """Whether a recording that was looked at is still the sample's."""
    values = [value for value in library.look_up(names.withdrawn_names(tombstone)) if value is not None]
    return any(seal_of(library.read(names.unpack(value))) in seals for value in values)
