"""Calls to a teacher as a training sees them: answers that are kept, failures, outages."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

from trainhooks.core import outage
from trainhooks.core.argument import whole, wrong
from trainhooks.core.outage import Outages
from trainhooks.session.attempt_files import AttemptFiles
from trainhooks.session.late import LateRecords
from trainhooks.storage.responses import ResponseLog

log = logging.getLogger("trainhooks")


class TeacherCalls(ABC):
    """The part of a tracker that knows the teacher's API. Every method may be called from any thread."""

    _book: AttemptFiles | None
    _late: LateRecords | None

    def __init__(self) -> None:
        self._outages = Outages()
        self._calls = threading.Lock()

    def record_api_response(
        self, prompt: str, response: str, *, model: str, system: str | None = None, source: str | None = None
    ) -> int | None:
        """Keep a teacher's answer, durably, and end an outage. `kdproxy warm` takes the file.

        Returns:
            Which answer to this prompt it is, from 0 on; None where it could not be written (the user is told).
        """
        for name, text in (("prompt", prompt), ("response", response), ("model=", model)):
            if not isinstance(text, str):
                raise wrong(f"record_api_response({name})", text, "a text", hint="Of messages: json.dumps(messages).")
        self.record_connection_recovery()
        try:
            with self._responses() as responses:
                if responses is None:
                    return None
                return responses.record(prompt, response, model=model, system=system, source=source)
        except OSError as error:
            log.warning("an answer could not be kept (%s)", error.strerror or error)
            return None

    def find_api_response(self, prompt: str, *, model: str, system: str | None = None, ordinal: int = 0) -> str | None:
        """Return an answer that was recorded for exactly this prompt, in this attempt or an earlier one, or None."""
        for name, text in (("prompt", prompt), ("model=", model)):
            if not isinstance(text, str):
                raise wrong(f"find_api_response({name})", text, "a text", hint="Of messages: json.dumps(messages).")
        whole("find_api_response(ordinal=)", ordinal)
        with self._responses() as responses:
            if responses is None:
                return None
            return responses.find(prompt, model=model, system=system, ordinal=ordinal)

    def _responses(self) -> AbstractContextManager[ResponseLog | None]:
        """Return the recorded answers, also of a session that is closed; None on ranks that do not write."""
        book, late = self._book, self._late
        if book is not None:
            self._begin()
            return nullcontext(book.responses)
        return nullcontext() if late is None else late.responses()

    def record_connection_failure(self, error: BaseException | str) -> None:
        """Note that a call failed; an outage goes on until an answer or a recovery is recorded."""
        failure = outage.describe(error)
        with self._calls:
            self._outages.failed(failure, time.monotonic())
        self._record_event("connection_failure", **asdict(failure))

    def record_connection_recovery(self) -> None:
        """Note that calls succeed again. Without an outage nothing happens."""
        if self._outages.since is None:
            return
        with self._calls:
            seconds = self._outages.recovered(time.monotonic())
        if seconds is not None:
            self._record_event("connection_recovery", down_seconds=seconds)

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _record_event(self, kind: str, /, **members: Any) -> None: ...
