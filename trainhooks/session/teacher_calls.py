"""Calls to a teacher as a training sees them: recorded answers, failures, outages."""

import logging
import threading
import time
from dataclasses import asdict

from trainhooks.core import outage
from trainhooks.core.argument import whole, wrong
from trainhooks.core.outage import Outages
from trainhooks.session.row_sink import RowSink

log = logging.getLogger("trainhooks")


class TeacherCalls:
    """Records answers and outages of the teacher's API. Every method may be called from any thread."""

    def __init__(self, sink: RowSink) -> None:
        self.outages = Outages()
        self._sink = sink
        self._lock = threading.Lock()

    def record(self, prompt: str, response: str, *, model: str, system: str | None, source: str | None) -> int | None:
        """Keep an answer durably, and end an outage: see `ProgressTracker.record_api_response`."""
        for name, text in (("prompt", prompt), ("response", response), ("model=", model)):
            if not isinstance(text, str):
                raise wrong(f"record_api_response({name})", text, "a text", hint="Of messages: json.dumps(messages).")
        self.recovered()
        try:
            with self._sink.responses() as responses:
                if responses is None:
                    return None
                return responses.record(prompt, response, model=model, system=system, source=source)
        except OSError as error:
            log.warning("an answer could not be kept (%s)", error.strerror or error)
            return None

    def find(self, prompt: str, *, model: str, system: str | None, ordinal: int) -> str | None:
        """Return a recorded answer: see `ProgressTracker.find_api_response`."""
        for name, text in (("prompt", prompt), ("model=", model)):
            if not isinstance(text, str):
                raise wrong(f"find_api_response({name})", text, "a text", hint="Of messages: json.dumps(messages).")
        whole("find_api_response(ordinal=)", ordinal)
        with self._sink.responses() as responses:
            if responses is None:
                return None
            return responses.find(prompt, model=model, system=system, ordinal=ordinal)

    def failed(self, error: BaseException | str) -> None:
        """Note a failed call: see `ProgressTracker.record_connection_failure`."""
        failure = outage.describe(error)
        with self._lock:
            self.outages.failed(failure, time.monotonic())
        self._sink.event("connection_failure", **asdict(failure))

    def recovered(self) -> None:
        """Note that calls succeed again. Without an outage nothing happens."""
        if self.outages.since is None:
            return
        with self._lock:
            seconds = self.outages.recovered(time.monotonic())
        if seconds is not None:
            self._sink.event("connection_recovery", down_seconds=seconds)
