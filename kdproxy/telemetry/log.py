"""Log lines: a constant message and fields. Never bodies, never credentials, never a query string."""

import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import TextIO

from kdproxy.core.models import Disposition, Outcome

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}

_PLAIN = re.compile(r"[!#-<>-~]+")  # printable ASCII but for blank, quote and equals sign

_NUMBERS = frozenset({int, float, bool})
_SHORT = 128
"""Characters; the cache of checked values holds no longer ones."""

log = logging.getLogger("kdproxy.request")


class _Lines(logging.Formatter):
    """One line per record, followed by its traceback, if it has one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = ((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        line = _line(record.created, record.levelname, record.getMessage(), fields)
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


def _line(at: float, level: str, message: str, fields: Iterable[tuple[str, object]]) -> str:
    """Return `time level message field=value ...`."""
    return f"{_second(int(at))} {level.lower()} {message}" + "".join([f" {name}={_value(it)}" for name, it in fields])


@lru_cache(maxsize=1)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _value(value: object) -> str:
    if type(value) in _NUMBERS:
        return str(value)
    text = str(value)
    return _short(text) if len(text) <= _SHORT else _quoted(text)


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


_short = lru_cache(maxsize=1_024)(_quoted)
"""Most values are those of the request before: method, path, upstream, model."""


def configure(level: str) -> None:
    """Send kdproxy's log lines to stderr."""
    # A line names no file, thread or process, so logging need not collect them (logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    root = logging.getLogger("kdproxy")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(level.upper())


class RequestLog:
    """An observer that writes one line per request. Hits are at debug level: there are thousands per second.

    It writes the logger's format without a log record, which took 35 us, a fifteenth of a miss.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def wants(self, disposition: Disposition) -> bool:
        """Whether such requests are logged at this level."""
        return log.isEnabledFor(_LEVELS.get(disposition, logging.INFO))

    def observe(self, outcome: Outcome) -> None:
        """Write one line."""
        usage, method, path = outcome.usage, outcome.method, outcome.path
        begin = _request_begin if len(method) + len(path) <= _SHORT else _made_begin
        line = (
            f"{_second(int(time.time()))} {begin(outcome.disposition, method, path, outcome.upstream)}"
            f" status={outcome.status} seconds={round(outcome.elapsed_seconds, 4)}"
        )
        # Written out: a list of fields, as other lines are made of, takes three times as long.
        if outcome.model is not None:
            line += f" model={_value(outcome.model)}"
        if outcome.key is not None:
            line += f" key={outcome.key[:16]}"
        if outcome.attempts:
            line += f" attempts={outcome.attempts}"
        if outcome.stored:
            line += " stored=True"
        if usage is not None and usage.input_tokens is not None:
            line += f" input_tokens={usage.input_tokens}"
        if usage is not None and usage.output_tokens is not None:
            line += f" output_tokens={usage.output_tokens}"
        if outcome.error is not None:
            line += f" error={_value(outcome.error)}"
        if outcome.reason is not None:
            line += f" reason={_value(outcome.reason)}"
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed pipe must not fail a request
            self._stream.write(f"{line}\n")


def _made_begin(disposition: Disposition, method: str, path: str, upstream: str | None) -> str:
    """Return level, message and first fields of a request's line: those of the request before, as a rule."""
    level = logging.getLevelName(_LEVELS.get(disposition, logging.INFO)).lower()
    fields = (("disposition", disposition), ("method", method), ("path", path), ("upstream", upstream))
    return f"{level} request" + "".join([f" {name}={_value(it)}" for name, it in fields if it is not None])


_request_begin = lru_cache(maxsize=256)(_made_begin)


_LEVELS = {
    Disposition.HIT: logging.DEBUG,
    Disposition.PROMPT_HIT: logging.DEBUG,
    Disposition.REFUSED: logging.WARNING,
    Disposition.FAILED: logging.WARNING,
}
