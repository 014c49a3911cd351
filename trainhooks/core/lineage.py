"""The member `lineage` of a row: which samples a step was made of, and which stored answers those were made of.

A sample's keys are written once per attempt, in the first row with the sample, and again when they change. So a reader
needs all rows of an attempt, including superseded ones. What is not known is never filled in.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainhooks.core.origin import Id, Keys, Origin

LINEAGE = "lineage"
UNKNOWN = "unknown"

Place = tuple[int | None, str]
"""(worker or None, text of the id)."""


class LineageEncoder:
    """Encodes where the batches of one attempt came from. Needs 120 bytes of memory for each sample with keys."""

    def __init__(self) -> None:
        self._written: dict[int | None, dict[Id, int]] = {}
        """By worker and sample: the hash of the keys that were written last."""

    def members(self, origin: Origin) -> dict[str, Any]:
        """Return the member `lineage`, as JSON."""
        encoded: dict[str, Any] = {} if origin.epoch is None else {"epoch": origin.epoch}
        if origin.ids is None:
            keys = None if origin.keys is None else [each or UNKNOWN for each in origin.keys]
            return {**encoded, "ids": UNKNOWN, "keys": keys or UNKNOWN}
        if origin.worker is not None:
            encoded["worker"] = origin.worker
        encoded["ids"] = origin.ids
        encoded["keys"] = self._changed(origin.worker, origin.ids, origin.keys)
        return encoded

    def _changed(self, worker: int | None, ids: tuple[Id, ...], keys: tuple[Keys, ...] | None) -> Any:
        changed: dict[str, Any] = {}
        written = self._written.setdefault(worker, {})
        if keys is None:
            if written:
                changed = {str(each): UNKNOWN for each in ids if written.pop(each, None) is not None}
            return changed or UNKNOWN
        for each, its_keys in zip(ids, keys, strict=True):
            if not its_keys:
                if written.pop(each, None) is not None:
                    changed[str(each)] = UNKNOWN
            elif written.get(each) != (digest := hash(its_keys)):
                written[each] = digest
                changed[str(each)] = its_keys
        return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLineage:
    """What one step was made of."""

    step: int
    epoch: int | None = None
    worker: int | None = None
    """Whose stream the ids count in, of iterable data."""
    ids: tuple[Id, ...] | None = None
    """None: not known."""
    keys: tuple[Keys, ...] | None = None
    """Of each sample, an empty one where they are not known; None where no sample's are."""
    asked: Keys = ()
    """What the loop itself asked for while the step ran."""
    ranks: int = 1
    """How many processes shared the step; the samples are those of rank 0."""

    @property
    def answers(self) -> Keys:
        """Every stored answer that is known to be in it, once."""
        return tuple(dict.fromkeys([key for keys in self.keys or () for key in keys] + list(self.asked)))


def resolved(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield lines as they were written, each with a `StepLineage` in place of its member `lineage`.

    After a lost line, earlier keys no longer count: the lost line may have changed them.
    """
    known: dict[int, dict[Place, Keys]] = {}
    seq = None
    for line in lines:
        if seq is not None and line["seq"] != seq + 1:
            known.clear()
        seq = line["seq"]
        members = line.get(LINEAGE)
        if "kind" in line or not isinstance(members, Mapping) or not isinstance(line.get("step"), int):
            yield {name: value for name, value in line.items() if name != LINEAGE}
            continue
        yield {**line, LINEAGE: _resolve(line["step"], members, known.setdefault(line["attempt"], {}))}


def _resolve(step: int, members: Mapping[str, Any], known: dict[Place, Keys]) -> StepLineage:
    worker, ids, stated = members.get("worker"), members.get("ids"), members.get("keys")
    keys: tuple[Keys, ...] | None = None
    if isinstance(ids, list):
        if isinstance(stated, Mapping):
            known.update({(worker, text): _keys(each) for text, each in stated.items()})
        keys = tuple(known.get((worker, str(each)), ()) for each in ids)
    elif isinstance(stated, list):
        keys = tuple(map(_keys, stated))
    return StepLineage(
        step=step,
        epoch=members.get("epoch"),
        worker=worker,
        ids=tuple(ids) if isinstance(ids, list) else None,
        keys=keys if keys and any(keys) else None,
        asked=_keys(members.get("asked")),
        ranks=members.get("ranks", 1),
    )


def _keys(stated: Any) -> Keys:
    return tuple((key, ordinal) for key, ordinal in stated) if isinstance(stated, list) else ()
