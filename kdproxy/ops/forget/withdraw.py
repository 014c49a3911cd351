"""The second half of `forget`: writes tombstones for chosen samples. Lines stay; the next request buys again."""

from dataclasses import dataclass
from typing import Any

from kdproxy.core.models import Tombstone
from kdproxy.core.ports import Library, RecordLine
from kdproxy.ops.context import JobContext, malformed
from kdproxy.ops.event import Events, Result
from kdproxy.ops.live import seal_of
from kdproxy.storage import names
from kdproxy.storage.sample_row import Generation, unpack
from kdproxy.storage.settle import by_name


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawArguments:
    """The arguments of `withdraw`."""

    samples: tuple[dict[str, Any], ...]
    """Each with `kind` (answer or prompt), `namespace`, `key`, `ordinal`, and `seals`: checksums of the lines that
    were read. A sample that has changed since is left alone."""
    reason: str


def withdraw(context: JobContext, arguments: WithdrawArguments) -> Events:
    """Write the tombstones."""
    library, now = context.library, context.now()
    chosen = [_read(sample, reason=arguments.reason, now=now) for sample in arguments.samples]
    withdrawn: list[Tombstone] = []
    lines: list[RecordLine] = []

    def decide() -> list[RecordLine]:
        for tombstone, seals in chosen:
            if _is_unchanged(library, tombstone, seals):
                withdrawn.append(tombstone)
                lines.extend(library.seal(line) for line in by_name(tombstone, _live(library, tombstone)))
        return lines

    library.revise(decide)
    yield Result({"withdrawn": len(withdrawn), "changed": len(arguments.samples) - len(withdrawn)})


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
    raise malformed("a sample is incomplete")


def _is_unchanged(library: Library, tombstone: Tombstone, seals: frozenset[str]) -> bool:
    """Whether the sample still has a recording that was read."""
    recordings = (recording for generation in _live(library, tombstone) for recording in generation.recordings)
    return any(seal_of(library.read(recording.location)) in seals for recording in recordings)


def _live(library: Library, tombstone: Tombstone) -> list[Generation]:
    [row] = library.look_up([names.row_of(tombstone) or ""])
    return unpack(row)
