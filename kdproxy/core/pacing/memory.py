"""What lanes have learned, as it outlives the process: a pace, a bound on calls at once, no low limit. Pure.

The form is that of `lanes.json` (docs/formats/lanes.md). A credential is named by a hash, keyed with the
directory's secret. Limits from headers are not kept: the first answer names them again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

VERSION = 1
STALE_SECONDS = 86_400.0
"""After a day it is no longer a useful start."""
MOST_LANES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What one lane has learned."""

    rate: float | None = None
    """Requests a second, found from refusals."""
    wall: float | None = None
    """How many calls at once are allowed."""
    has_started: bool = False
    """Whether so many have passed that there is no low limit."""

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return self.rate is None and self.wall is None and not self.has_started


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a lane had learned, and when it was last used."""

    upstream: str
    credential: str
    model: str
    learned: Learned
    at: float
    """UTC Unix seconds."""


class NewerVersion(Exception):
    """It was written by a newer kdproxy: it is left as it is."""


def encode(lanes: Iterable[Remembered]) -> bytes:
    """Return the file, with the lanes that were used last."""
    kept = sorted(lanes, key=lambda lane: lane.at)[-MOST_LANES:]
    rows = [
        {
            "upstream": lane.upstream,
            "credential": lane.credential,
            "model": lane.model,
            "rate": lane.learned.rate,
            "wall": lane.learned.wall,
            "has_started": lane.learned.has_started,
            "at": round(lane.at, 3),
        }
        for lane in kept
    ]
    return orjson.dumps({"version": VERSION, "lanes": rows}, option=orjson.OPT_INDENT_2) + b"\n"


def decode(data: bytes, *, now: float) -> tuple[Remembered, ...] | None:
    """Return what is not stale; None where it cannot be read.

    Args:
        now: UTC Unix seconds.

    Raises:
        NewerVersion: it was written by a newer kdproxy.
    """
    try:
        members = orjson.loads(data)
        version = members["version"]
        if isinstance(version, int) and version > VERSION:
            raise NewerVersion
        lanes = [_lane(row) for row in members["lanes"]]
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
        return None
    return tuple(lane for lane in lanes if 0 <= now - lane.at < STALE_SECONDS and not lane.learned.is_empty)


def _lane(row: dict[str, Any]) -> Remembered:
    learned = Learned(rate=_positive(row["rate"]), wall=_positive(row["wall"]), has_started=row["has_started"] is True)
    upstream, credential, model = (str(row[name]) for name in ("upstream", "credential", "model"))
    return Remembered(upstream=upstream, credential=credential, model=model, learned=learned, at=float(row["at"]))


def _positive(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6:
        return float(value)
    return None
