"""The next batch of a stream, as a checkpoint names it: what the first batch after a resume is compared with. Pure.

Only what a loader knows without loading anything is named, so nothing is read, and no teacher is asked, for it.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from trainhooks.core.difference import Difference, differ
from trainhooks.core.origin import Id, Origin

_NAMED = 32
"""So many ids stand in a checkpoint; the digest covers all of them."""


def members(origin: Origin, *, rank: int, is_whole: bool = True) -> dict[str, Any]:
    """Return what a checkpoint says of a stream's next batch.

    Args:
        origin: its samples; the first ones where `is_whole` is False, since the loader does not know how many come.
        rank: whose batch it is.
    """
    ids = origin.ids or ()
    return {
        "epoch": origin.epoch,
        "worker": origin.worker,
        "rank": rank,
        "ids": list(ids[:_NAMED]),
        "count": len(ids) if is_whole else None,
        "digest": _digest(ids) if is_whole else None,
    }


def compare(what: str, expected: Mapping[str, Any], given: Origin, *, rank: int) -> tuple[bool, Difference | None]:
    """Compare the first batch of a stream with the one that the checkpoint names.

    Returns:
        Whether it could be compared, and what differs. It is unknown which worker's batch comes at the end of an
        epoch, nor where a rank's part begins once the batch size or the number of ranks has changed.
    """
    if given.ids is None or expected["rank"] != rank:
        return False, None
    if expected["worker"] is not None and (expected["worker"], expected["epoch"]) != (given.worker, given.epoch):
        return False, None
    if expected["count"] is not None and expected["count"] != len(given.ids) and rank != 0:
        return False, None
    if expected["epoch"] is not None and expected["epoch"] != given.epoch:
        return True, differ(f"the epoch of the {what}", expected["epoch"], given.epoch)
    named: list[Id] = expected["ids"]
    count = min(len(named), len(given.ids))
    at = next((at for at in range(count) if named[at] != given.ids[at]), None)
    if at is not None:
        where = what if at == 0 else f"{what} from place {at} on"
        return True, Difference(what=where, before=_listed(named[at:]), after=_listed(list(given.ids[at:])))
    if expected["count"] == len(given.ids) and expected["digest"] != _digest(given.ids):
        where = f"{what} behind the first {_NAMED} (digest of all)"
        return True, Difference(what=where, before=expected["digest"], after=_digest(given.ids))
    return True, None


def _listed(ids: list[Id]) -> str:
    return ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")


def _digest(ids: tuple[Id, ...]) -> str:
    return hashlib.blake2b(repr(ids).encode(), digest_size=8).hexdigest()
