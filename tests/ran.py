"""How a command ended."""

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Ran:
    """Its exit code and what it printed."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)
