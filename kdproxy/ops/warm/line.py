"""One line of a file to warm from, made into a record. The line itself determines its format, not the file name."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from kdproxy.core import key
from kdproxy.core import line as lines
from kdproxy.core import record as record_format
from kdproxy.core.call_event import EVENT_KINDS
from kdproxy.core.models import DEFAULT_NAMESPACE, Other, Prompt
from kdproxy.core.routing import Router
from kdproxy.errors import RecordInvalid
from kdproxy.ops.warm import batch, tracker
from kdproxy.ops.warm.candidate import Candidate, made
from kdproxy.ops.warm.row import RowUnpaired, RowUnreadable, RowUnusable

_SEAL_START = b',"sha256":"'
_SEAL_AT = slice(-77, -66)


class LineReader:
    """Reads the lines of one run of `warm`, file by file; halves of Batch pairs wait until all files are read."""

    def __init__(
        self,
        router: Router,
        pairing: batch.Pairing,
        *,
        model: str | None,
        anthropic_version: str | None,
        now: float,
    ) -> None:
        self._router = router
        self._pairing = pairing
        self._model = model
        self._anthropic_version = anthropic_version
        self._now = now
        self._source = ""
        self._equal_rows: Counter[int] = Counter()

    def begin(self, path: Path) -> None:
        """Start a file, with new counts of equal rows."""
        self._source = path.name
        self._equal_rows.clear()

    def read(self, text: bytes, *, path: Path, number: int) -> Candidate | None:
        """Read a line; None where it is half of a Batch pair.

        Raises:
            RowUnusable: with the reason.
        """
        if text[_SEAL_AT] == _SEAL_START:
            return _journal_line(text)
        members, plain = load(text)
        if not isinstance(members, dict):
            raise RowUnusable("it is not a JSON object; each line must be one object")
        if "v" in members and "kind" in members:
            return _journal_line(text)
        side = batch.side_of(members)
        if side is None:
            return self._prompt(members)
        is_failed = side is batch.Side.OUTPUT and batch.is_failed(members)
        kept = plain if side is batch.Side.OUTPUT else text  # the digits of a question's numbers are part of its key
        self._pairing.add(side, members["custom_id"], kept, file=str(path), line=number, is_failed=is_failed)
        return None

    def pairs(self) -> Iterator[batch.Pair]:
        """Yield the Batch pairs, once all files are read."""
        return self._pairing.pairs()

    def read_pair(self, pair: batch.Pair) -> Candidate:
        """Read a Batch pair. Raises RowUnusable."""
        if pair.is_ambiguous:
            raise RowUnusable(f"several lines have the custom_id {pair.custom_id!r:.80}; warm one batch at a time")
        if pair.input is None:
            raise RowUnpaired(f"no input line has its custom_id {pair.custom_id!r:.80}; give the input file too")
        if pair.output is None:
            raise RowUnpaired(f"no output line has its custom_id {pair.custom_id!r:.80}")
        entry, _ = batch.entry_of(
            pair.input.text,
            pair.output.text,
            router=self._router,
            now=self._now,
            anthropic_version=self._anthropic_version,
        )
        return made(entry)

    def _prompt(self, members: dict[str, Any]) -> Candidate:
        row = tracker.read(members, model=self._model)
        match_key = key.match_key(row.model, row.turns)
        # 64 bits of the key are enough to count by, and ten million rows still fit into memory.
        count_by = int(match_key[:16], 16)
        ordinal = self._equal_rows[count_by]
        self._equal_rows[count_by] += 1
        prompt = Prompt(
            namespace=DEFAULT_NAMESPACE,
            match_key=match_key,
            ordinal=ordinal,
            model=row.model,
            turns=row.turns,
            response=row.response,
            prompt_hash=row.prompt_hash,
            created_at=self._now if row.created_at is None else row.created_at,
            source=self._source,
        )
        return made(prompt)


def load(text: bytes) -> tuple[Any, bytes]:
    """Read JSON, with NaN and Infinity as null: pandas and log-probabilities contain them.

    Returns:
        The value, and its text as valid JSON.

    Raises:
        RowUnreadable: it is not JSON.
    """
    try:
        return orjson.loads(text), text
    except orjson.JSONDecodeError as error:
        reason = f"it is not JSON: {error.msg} at column {error.colno}"
    try:
        value = json.loads(text, parse_constant=lambda _: None)
        # Lone surrogates and numbers beyond double can be neither indexed nor served.
        plain = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise RowUnreadable(reason) from error
    return value, plain


def _journal_line(text: bytes) -> Candidate:
    """Read a journal line; if a file was appended to a torn line, the whole line at its end."""
    try:
        named = record_format.read(text)
    except RecordInvalid as error:
        start = lines.remainder(text)
        if start is None:
            raise RowUnusable(error.message) from error
        return _journal_line(text[start:])
    if isinstance(named.record, Other) and named.record.kind in EVENT_KINDS:
        raise RowUnusable(
            "it is a line of an events log, which holds no answer; to keep it, append that file to events.jsonl while "
            "no kdproxy runs there"
        )
    return Candidate(named=named, line=text + b"\n", is_journal=True)
