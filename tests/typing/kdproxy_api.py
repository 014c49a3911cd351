"""kdproxy's public API as a typed script uses it. mypy reads this file (make check); nothing runs it."""

from pathlib import Path
from typing import assert_type

import kdproxy
from kdproxy.core import record
from kdproxy.core.models import Entry, Prompt, Tombstone

assert_type(kdproxy.__version__, str)

for line in Path("api_recovery.jsonl").read_bytes().splitlines(keepends=True):
    found = record.decode(line)
    if isinstance(found, Entry):
        assert_type(found.address.key, str)
    elif isinstance(found, Prompt | Tombstone):
        pass
