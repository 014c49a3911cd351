"""The archive: what has been paid for. Journal, index and recent answers behind the Library port."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

from kdproxy.core import record as record_format
from kdproxy.core.models import Address, Answer, Entry, Form, Prompt, Record, Tombstone
from kdproxy.core.ports import JournalLine, Location, Store
from kdproxy.errors import KdproxyError, StorageFailed
from kdproxy.storage import names
from kdproxy.storage.indexer import OpenReport, report_unreadable
from kdproxy.storage.journal import Journal
from kdproxy.storage.recent import RecentAnswers
from kdproxy.storage.writer import Write, Writer, call_soon


class FileArchive:
    """The Library port over a Journal and a Store. `find`, `find_prompt`, `keep` are for the loop's thread."""

    def __init__(self, journal: Journal, make_store: Callable[[], Store], *, memory_bytes: int) -> None:
        self._journal = journal
        self._recent = RecentAnswers(memory_bytes)
        self._writer = Writer(journal, make_store)
        self.report = self._writer.start()
        self._store = self._writer.store

    # -- what the engine asks ---------------------------------------------------------------------------------

    def find(self, address: Address, form: Form) -> Answer | None:
        """Return a stored answer, or None. A damaged line is a miss, and is reported."""
        name = names.answer_name(address, form)
        answer = self._recent.get(name)
        if answer is not None:
            return answer
        epoch = self._recent.epoch
        value = self._store.get(name)
        if value is None:
            return None
        location = names.unpack(value)
        try:
            answer = record_format.decode_answer(self._journal.read(location), address, form)
        except KdproxyError as error:
            report_unreadable(self._journal.name, location, error)
            return None
        self._recent.put(name, answer, epoch=epoch)
        return answer

    def find_prompt(self, namespace: str, match_key: str, ordinal: int = 0) -> Prompt | None:
        """Return a recorded prompt, or None."""
        if not self.counters.prompts:
            return None
        value = self._store.get(names.prompt_name(namespace, match_key, ordinal))
        if value is None:
            return None
        location = names.unpack(value)
        try:
            found = record_format.decode(self._journal.read(location))
        except KdproxyError as error:
            report_unreadable(self._journal.name, location, error)
            return None
        is_right = isinstance(found, Prompt) and found.match_key == match_key and found.namespace == namespace
        return found if is_right and isinstance(found, Prompt) else None

    def knows_response(self, namespace: str, response_id: str) -> bool:
        """Whether a stored answer has this provider response id."""
        return self._store.get(names.response_name(namespace, response_id)) is not None

    async def keep(self, record: Record) -> bool:
        """Make a record durable and findable; False if the disk refused and it waits in memory."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()

        def resolve(is_kept: bool) -> None:
            self._forget_recent([record])
            if not future.done():
                future.set_result(is_kept)

        def tell(is_kept: bool) -> None:
            call_soon(loop, resolve, is_kept)

        self._writer.submit(Write(records=[record], lines=[record_format.encode(record)], done=tell))
        return await future

    @property
    def is_writable(self) -> bool:
        """Whether the last write reached the disk."""
        return self._writer.is_writable

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""
        await self._writer.wait_writable()

    # -- what the jobs ask ------------------------------------------------------------------------------------

    def keep_all(self, records: Iterable[Record], *, raw: Iterable[bytes] = ()) -> None:
        """Make many records durable, blocking. `raw` are checked lines, written as they are.

        Raises:
            StorageFailed: the disk refused; the records wait in memory while this process lives.
        """
        all_records = list(records)
        lines = [record_format.encode(record) for record in all_records]
        for line in raw:
            all_records.append(record_format.decode(line))
            lines.append(line if line.endswith(b"\n") else line + b"\n")
        if not all_records:
            return
        done: Future[bool] = Future()
        self._writer.submit(Write(records=all_records, lines=lines, done=done.set_result))
        is_kept = done.result()
        self._forget_recent(all_records)
        if not is_kept:
            raise StorageFailed(
                "The disk refused the write.",
                hint="Free disk space. The lines are held in memory and tried again while this process runs.",
                retryable=True,
            )

    def lines(self) -> Iterator[JournalLine]:
        """Yield every line of the journal in order, damaged ones included."""
        return self._journal.lines()

    def is_live(self, entry: Entry | Prompt, location: Location) -> bool:
        """Whether the index still points to this line."""
        return self._writer.call(lambda: self._store.get(names.name_of(entry))) == names.pack(location)

    def live_locations(self) -> set[Location]:
        """Return where all live lines lie."""
        return self._writer.call(
            lambda: {names.unpack(value) for prefix in ("a/", "p/") for _, value in self._store.scan(prefix)}
        )

    def has(self, address: Address, form: Form) -> bool:
        """Whether the index holds an answer, without reading it."""
        return self._writer.call(lambda: self._store.get(names.answer_name(address, form))) is not None

    def has_prompt(self, namespace: str, match_key: str, ordinal: int) -> bool:
        """Whether the index holds a recorded prompt."""
        return self._writer.call(lambda: self._store.get(names.prompt_name(namespace, match_key, ordinal))) is not None

    def segment_name(self, segment: int) -> str:
        """File name of a segment."""
        return self._journal.name(segment)

    @property
    def counters(self) -> names.Counters:
        """Sums over what the index holds."""
        return self._writer.indexer.counters

    @property
    def size_bytes(self) -> int:
        """Bytes in the journal."""
        return self._journal.size_bytes

    def rebuild(self) -> OpenReport:
        """Make the index anew from the journal. Blocks; answers are not found meanwhile."""
        return self._writer.call(self._writer.indexer.rebuild)

    def close(self) -> None:
        """Write what waits, close all files."""
        self._writer.close()

    def _forget_recent(self, records: Iterable[Record]) -> None:
        dropped: list[str] = []
        for record in records:
            dropped += names.withdrawn_names(record) if isinstance(record, Tombstone) else [names.name_of(record)]
        self._recent.drop(dropped)
