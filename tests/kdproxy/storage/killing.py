"""Writes to an archive and is killed, again and again; run by test_kill.py in a process of its own.

Each child keeps records and tells of each only when it was acknowledged; the parent kills it in mid-flight, opens the
archive and looks for all that was told. Forked, so that a kill costs milliseconds.
"""

import asyncio
import json
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

from kdproxy.core.models import Entry, Form
from kdproxy.storage import writer as writer_module
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.disk import DiskStore
from kdproxy.storage.journal import Journal
from tests.kdproxy.sample import numbered

TOLD = struct.Struct(">Q")
TASKS = 8


def entry(number: int) -> Entry:
    return numbered(number, b"%d " % number * (number % 97 + 1), request=b"{}")


def open_archive(directory: Path) -> FileArchive:
    journal = Journal(directory, segment_bytes=60_000)
    return FileArchive(journal, lambda: DiskStore(directory / "index"), memory_bytes=0)


def write_until_killed(directory: Path, first: int, told: int) -> None:
    writer_module.INDEX_SECONDS = 0.005  # so that kills meet it in the index as often as in the journal
    archive = open_archive(directory)
    numbers = iter(range(first, first + 10**9))

    async def keep_on() -> None:
        for number in numbers:
            assert await archive.keep(entry(number))
            os.write(told, TOLD.pack(number))

    async def all_tasks() -> None:
        await asyncio.gather(*(keep_on() for _ in range(TASKS)))

    asyncio.run(all_tasks())


def kill_once(directory: Path, first: int, seconds: float) -> list[int]:
    """Return the numbers that were acknowledged before the kill."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_until_killed(directory, first, writing)
        finally:
            os._exit(1)  # never on into the parent's loop
    os.close(writing)
    told = os.read(reading, TOLD.size)  # the first one: from here on it is at work
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while chunk := os.read(reading, 1 << 16):
        told += chunk
    os.close(reading)
    return [number for (number,) in TOLD.iter_unpack(told)]


def lost(archive: FileArchive, numbers: list[int]) -> list[int]:
    wanted = {number: entry(number) for number in numbers}
    return [number for number, found in wanted.items() if archive.find(found.address, Form.JSON) != found.answer]


def main(directory: Path, kills: int) -> None:
    rng = random.Random(7)
    report = {"kills": 0, "told": 0, "lost": 0, "torn": 0, "read_again": 0, "rebuilt": 0, "damage": 0}
    told: list[int] = []
    for _ in range(kills):
        latest = kill_once(directory, (told[-1] if told else 0) + 1_000, rng.uniform(0, 0.12))
        told += sorted(latest)
        archive = open_archive(directory)
        opened = archive.report
        report["kills"] += 1
        report["told"] += len(latest)
        report["lost"] += len(lost(archive, latest))
        report["torn"] += bool(opened.torn_bytes)
        report["read_again"] += opened.indexed_lines
        report["rebuilt"] += opened.is_rebuilt
        report["damage"] += len(opened.damage)
        archive.close()
    archive = open_archive(directory)
    report["lost"] += len(lost(archive, told))
    report["segments"] = archive.snapshot().segments
    report["counted"] = archive.snapshot().answers["openai"]
    report["lines"] = sum(1 for _ in archive.lines())
    archive.close()
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
