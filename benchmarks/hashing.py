"""How fast checkpoints are hashed: `python benchmarks/hashing.py [--quick]`.

SHA-256 of memory, of what a save writes, and of what a verification reads from the page cache. Counted is the CPU time
of the thread that hashes, so that neither the disk nor others on the machine are measured.
"""

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import report
from figure import Figure, judged

from trainhooks.storage import durable_file

GOAL_GB_PER_SECOND = 1.0


def hashing(data: memoryview, path: Path) -> float:
    """Hash memory, in the pieces that a save takes."""
    begun = time.thread_time()
    digest = hashlib.sha256()
    for start in range(0, data.nbytes, durable_file.CHUNK_BYTES):
        digest.update(data[start : start + durable_file.CHUNK_BYTES])
    return time.thread_time() - begun


def saving(data: memoryview, path: Path) -> float:
    """Write and sync a file; what its hashing thread took."""
    update, took = durable_file.update, [0.0]

    def timed(*given: object) -> None:
        assert threading.current_thread().name.startswith("trainhooks-hash"), "not on the thread that writes"
        begun = time.thread_time()
        update(*given)  # type: ignore[arg-type]
        took[0] += time.thread_time() - begun

    with mock.patch.object(durable_file, "update", timed):
        durable_file.write(path, [data])
    path.unlink()
    return took[0]


def verifying(data: memoryview, path: Path) -> float:
    """Read and hash a file that is in the page cache."""
    path.write_bytes(data)
    begun = time.thread_time()
    durable_file.digest(path)
    took = time.thread_time() - begun
    path.unlink()
    return took


WORK: dict[str, Callable[[memoryview, Path], float]] = {
    "SHA-256 of memory": hashing,
    "SHA-256 while a save writes": saving,
    "a verification's read and SHA-256": verifying,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it runs")
    parser.add_argument("--megabytes", type=int, default=256, help="in each round; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="write the figures there")
    options = parser.parse_args()
    megabytes, rounds = (16, 1) if options.quick else (options.megabytes, options.rounds)
    begun = time.monotonic()
    data = memoryview(os.urandom(1 << 20) * megabytes)
    with tempfile.TemporaryDirectory(prefix="trainhooks-bench-", dir="/var/tmp") as scratch:
        seen: dict[str, list[float]] = {name: [] for name in WORK}
        for _ in range(rounds):
            for name, work in WORK.items():
                seen[name].append(data.nbytes / 1e9 / work(data, Path(scratch) / "file"))
        figures = [
            Figure(
                work=name,
                goal=f">= {GOAL_GB_PER_SECOND:.0f} GB/s",
                figure=f"{statistics.median(speeds):.2f} GB/s",
                verdict=judged(statistics.median(speeds) >= GOAL_GB_PER_SECOND),
                data={"gb_per_second": speeds},
            )
            for name, speeds in seen.items()
        ]
        report.table(figures, f"{megabytes} MB a round; CPU time of the thread that hashes")
        if options.output:
            seconds = time.monotonic() - begun
            report.save(figures, options.output, Path(scratch), is_quick=options.quick, seconds=seconds)
    return int(any(figure.verdict == "missed" for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
