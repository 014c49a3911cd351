"""`warm`: fills the archive from files of any known format. docs/warm.md is the user's page."""

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdproxy.core.models import Entry, Prompt, Tombstone, Upstream
from kdproxy.core.routing import Router
from kdproxy.errors import KdproxyError
from kdproxy.ops.context import JobContext
from kdproxy.ops.event import Event, Events, Finding, Progress, Result
from kdproxy.ops.warm.batch import Pairing
from kdproxy.ops.warm.candidate import Candidate, Selection, Verdict
from kdproxy.ops.warm.line import LineReader
from kdproxy.ops.warm.row import RowFailed, RowUnpaired, RowUnreadable, RowUnusable
from kdproxy.ops.warm.source import MAX_LINE_BYTES, Source, SourceBroken, size_of

BATCH_LINES = 500
BATCH_BYTES = 16 << 20
"""Records that are written together."""
REPORT_LINES = 1_000
"""How often a file without anything to write reports its progress."""
MOST_SHOWN = 20
"""Lines that are reported one by one; all are counted."""

_SEGMENT = re.compile(r"api_recovery\.(?:(\d{6,})\.)?jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmArguments:
    """The arguments of `warm`."""

    files: tuple[str, ...]
    """Absolute paths; a directory means the journal in it."""
    model: str | None = None
    """For rows that do not name one."""
    upstream_name: str | None = None
    upstream_url: str | None = None
    """Where Batch answers come from; None: as the proxy is configured."""
    anthropic_version: str | None = None
    """The `anthropic-version` that live requests carry, for Message Batches; None: derived from each request."""
    strict: bool = False
    """Stop at the first line that cannot be used."""


def warm(context: JobContext, arguments: WarmArguments) -> Events:
    """Read the files and store what is new. Raises KdproxyError if a file cannot be opened."""
    files = [file for name in arguments.files for file in _files(Path(name))]
    sizes = [size_of(file) for file in files]
    total = sum(sizes)
    yield Progress(done_bytes=0, total_bytes=total)
    with ExitStack() as stack:
        pairing = stack.enter_context(Pairing())
        router = context.router
        if arguments.upstream_name is not None and arguments.upstream_url is not None:
            router = Router([Upstream(name=arguments.upstream_name, url=arguments.upstream_url)])
        reader = LineReader(
            router,
            pairing,
            model=arguments.model,
            anthropic_version=arguments.anthropic_version,
            now=context.now(),
        )
        run = stack.enter_context(_Run(reader, Selection(context.library), is_strict=arguments.strict))
        done = 0
        for file, size in zip(files, sizes, strict=True):
            for read_bytes in run.take_file(file):
                yield from run.unreported()
                yield Progress(done_bytes=min(done + read_bytes, total), total_bytes=total)
            done += size
        for _ in run.take_pairs():
            yield from run.unreported()
            yield Progress(done_bytes=total, total_bytes=total)
        yield from run.unreported()
        result = Result(run.sums())
    yield result


def _files(path: Path) -> list[Path]:
    """Return a file itself, or the segments of a directory's journal, oldest first."""
    if not path.is_dir():
        return [path]
    found = {child: match for child in path.iterdir() if (match := _SEGMENT.fullmatch(child.name))}
    if not found:
        raise KdproxyError(
            f"{path} is a directory without a journal.",
            hint="Give files, or a kdproxy data directory.",
            code="file_unreadable",
            http_status=400,
        )
    return sorted(found, key=lambda child: (found[child][1] is None, int(found[child][1] or 0)))


class _Run:
    """One run: its counts, and the records to write. One batch is written while the next is read."""

    def __init__(self, reader: LineReader, selection: Selection, *, is_strict: bool) -> None:
        self._reader = reader
        self._selection = selection
        self._is_strict = is_strict
        self._is_stopped = False
        self._pending: list[Candidate] = []
        self._pending_bytes = 0
        self._counts: Counter[str] = Counter()
        self._unreported: list[Event] = []
        self._shown = 0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kdproxy-warm")
        self._writing: tuple[list[Candidate], Future[list[Verdict]]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()

    def take_file(self, path: Path) -> Iterator[int]:
        """Take the lines of a file; yield, after each write, how many of its bytes have been read."""
        source = Source(path)
        self._reader.begin(path)
        number = 0
        try:
            for line in source.lines():
                if self._is_stopped:
                    break
                number, text = line.number, line.text
                self._counts["lines"] += 1
                if text is None:
                    self._report(path, number, "bad", f"it is longer than {MAX_LINE_BYTES >> 20} MiB")
                    continue
                try:
                    self._add(self._reader.read(text, path=path, number=number))
                except RowUnusable as error:
                    if isinstance(error, RowUnreadable) and not line.has_end:
                        self._cut(
                            path,
                            number,
                            "its last line is incomplete: cut off, or being written",
                            source,
                        )
                    else:
                        self._report(path, number, "bad", str(error))
                if self._is_due():
                    self._write()
                    yield source.read_bytes
                elif number % REPORT_LINES == 0:
                    yield source.read_bytes
        except SourceBroken as error:
            self._cut(path, number + 1, str(error), source)
        self._write()
        yield source.read_bytes

    def take_pairs(self) -> Iterator[None]:
        """Take the Batch pairs; yield after each write."""
        for pair in self._reader.pairs():
            if self._is_stopped:
                break
            try:
                self._add(self._reader.read_pair(pair))
            except RowUnusable as error:
                self._report(Path(pair.place.file), pair.place.line, _kind(error), str(error))
            if self._is_due():
                self._write()
                yield
        self._write()

    def unreported(self) -> Iterator[Event]:
        """Yield the findings that have not been reported yet."""
        findings, self._unreported = self._unreported, []
        yield from findings

    def sums(self) -> dict[str, Any]:
        """Return the counts of all lines, once the last are written."""
        self._settle()
        return {**{name: self._counts[name] for name in _COUNTED}, "is_stopped": self._is_stopped}

    def _add(self, candidate: Candidate | None) -> None:
        if candidate is not None:
            self._pending.append(candidate)
            self._pending_bytes += len(candidate.line)

    def _is_due(self) -> bool:
        return len(self._pending) >= BATCH_LINES or self._pending_bytes >= BATCH_BYTES

    def _write(self) -> None:
        self._settle()
        if self._pending:
            self._writing = self._pending, self._executor.submit(self._selection.take, self._pending)
            self._pending, self._pending_bytes = [], 0

    def _settle(self) -> None:
        """Wait for the current write and count its outcome. Raises StorageFailed."""
        if self._writing is None:
            return
        candidates, verdicts = self._writing
        self._writing = None
        for candidate, verdict in zip(candidates, verdicts.result(), strict=True):
            self._counts[
                _NAMES.get(type(candidate.record), "others") if verdict is Verdict.TAKEN else str(verdict)
            ] += 1

    def _cut(self, path: Path, number: int, reason: str, source: Source) -> None:
        """Report an incomplete file: always, however many lines have been reported."""
        self._counts["bad"] += 1
        self._counts["broken"] += 1
        self._is_stopped = self._is_stopped or self._is_strict
        lines_read = f"{number - 1:,} {'line was' if number == 2 else 'lines were'} read"
        bytes_read = f"{source.read_bytes:,} of {max(source.read_bytes, size_of(path)):,} bytes"
        text = f"the file could not be read to its end: {reason}; {lines_read} ({bytes_read}). The rest is missing"
        self._unreported.append(Finding({"kind": "broken", "file": str(path), "line": number, "reason": text}))

    def _report(self, path: Path, number: int, kind: str, reason: str) -> None:
        self._counts[kind] += 1
        # A request that the provider refused is not a mistake in the file.
        self._is_stopped = self._is_stopped or (self._is_strict and kind != "failed")
        if self._shown < MOST_SHOWN:
            self._shown += 1
            self._unreported.append(Finding({"kind": kind, "file": str(path), "line": number, "reason": reason}))


_COUNTED = (
    *("lines", "answers", "prompts", "tombstones", "already", "withdrawn"),
    *("failed", "unpaired", "bad", "broken"),
)


def _kind(error: RowUnusable) -> str:
    match error:
        case RowFailed():
            return "failed"
        case RowUnpaired():
            return "unpaired"
        case _:
            return "bad"


_NAMES: dict[type, str] = {Entry: "answers", Prompt: "prompts", Tombstone: "tombstones"}
