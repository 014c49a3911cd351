"""Lets trainhooks run where orjson is not installed, as on a machine that has only PyTorch: json stands in for it."""

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any


class StandIn(ModuleType):
    """As much of orjson as writing metrics asks for; options make no difference to what is read back here."""

    JSONEncodeError = TypeError
    JSONDecodeError = json.JSONDecodeError
    loads = staticmethod(json.loads)

    @staticmethod
    def dumps(value: Any, default: Any = None, option: int | None = None) -> bytes:
        return json.dumps(value, default=default, separators=(",", ":")).encode()

    def __getattr__(self, name: str) -> int:
        if name.startswith("OPT_"):
            return 0
        raise AttributeError(name)


if importlib.util.find_spec("orjson") is None:
    sys.modules["orjson"] = StandIn("orjson")
