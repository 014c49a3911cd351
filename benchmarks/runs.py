"""How long the events of a long run take: `python benchmarks/runs.py [--quick]`.

A run of 10^6 used samples: reading its history, putting an attempt back to a cursor, and a start with and without the
index. Counted is CPU time: nearly all of it is the interpreter's, and others on the machine are not measured. The file
is in the page cache.
"""

import argparse
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import report
from figure import Figure, Verdict, judged

from kdproxy.core.call_set import CallSet
from kdproxy.core.models import LineName
from kdproxy.core.run_event import Opened, Used, encode_run_event
from kdproxy.core.run_history import History
from kdproxy.storage.event_reading import Calls, recover
from kdproxy.storage.journal import Journal
from kdproxy.storage.life import Life
from kdproxy.storage.log_files import EVENT_FILES
from kdproxy.storage.run_reading import read_history

SAMPLES = 4
"""Of each question."""


def write(directory: Path, events: int) -> tuple[LineName, LineName]:
    """Write the log of a run with one attempt; return the attempt, and the event in the middle."""
    life = Life()
    attempt, keys = life.next_name(), [_key(number) for number in range(events // SAMPLES)]
    with (directory / EVENT_FILES.active).open("wb") as file:
        file.write(life.start(now=time.time(), release="bench")[1])
        file.write(encode_run_event(Opened("bench", "1", time.time()), attempt))
        middle = attempt
        for number in range(events):
            name = life.next_name()
            ordinal, question = divmod(number, len(keys))
            file.write(encode_run_event(Used(attempt, keys[question], ordinal), name))
            if number == events // 2:
                middle = name
    return attempt, middle


def _key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def measure(directory: Path, attempt: LineName, middle: LineName) -> dict[str, float]:
    """Return CPU seconds."""
    took: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begun = time.process_time()
        found = work()
        took[name] = time.process_time() - begun
        return found

    with closing(Journal(directory, segment_bytes=1 << 62, files=EVENT_FILES, is_read_only=True)) as files:
        history: History = timed("history", lambda: read_history(files, [attempt]))
        timed("cursor", lambda: history.ordinals(attempt, middle, is_whole=False))
        calls: Calls = timed("without index", lambda: recover(files, None, CallSet(), CallSet))
        row = calls.dump()
        timed("with index", lambda: recover(files, row, CallSet(), CallSet))
    return took


GOALS = {
    "history": ("the history of a run, read", 2.0),
    "cursor": ("an attempt at a cursor in the middle", 1.0),
    "with index": ("a start", 2.0),
    "without index": ("a start without the index", None),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the events, once: to see that it runs")
    parser.add_argument("--events", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="write the figures there")
    options = parser.parse_args()
    events, rounds = (options.events // 10, 1) if options.quick else (options.events, options.rounds)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kdproxy-bench-", dir="/var/tmp") as scratch:
        attempt, middle = write(Path(scratch), events)
        seen = [measure(Path(scratch), attempt, middle) for _ in range(rounds)]
        figures = []
        for name, (work, goal) in GOALS.items():
            seconds = statistics.median(each[name] for each in seen) * 1_000_000 / events
            figures.append(
                Figure(
                    work=work,
                    goal="" if goal is None else f"< {goal:g} s",
                    figure=f"{seconds:.2f} s",
                    verdict=Verdict.REPORTED if goal is None else judged(seconds < goal),
                    data={"cpu_seconds": [each[name] for each in seen], "events": events},
                )
            )
        report.table(figures, "CPU time, for a run of 10^6 used samples")
        if options.output:
            took = time.monotonic() - begun
            report.save(figures, options.output, Path(scratch), is_quick=options.quick, seconds=took)
    return int(any(figure.verdict == "missed" for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
