"""A full queue drops what comes, counts it, and says so once somebody reads."""

import os
import sys

import pytest

from kdproxy.telemetry import output
from kdproxy.telemetry.output import QueuedOutput, queued_output


def test_what_is_dropped_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MOST_PIECES", 5)
    reading, writing = os.pipe()
    os.set_blocking(writing, True)
    stream = QueuedOutput(os.fdopen(writing, "w", closefd=False))
    filler = "x" * 200_000 + "\n"  # more than a pipe holds: the thread waits for a reader
    for _ in range(20):
        stream.write(filler)
    text = b""
    while b"pieces of output were dropped" not in text:
        text += os.read(reading, 1 << 20)
    assert b"the reader was too slow" in text
    stream.finish()
    os.close(writing)
    os.close(reading)


def test_it_stands_in_for_both_streams_and_writes_all_that_was_said(capfd: pytest.CaptureFixture[str]) -> None:
    with queued_output():
        print("one")
        print("two", file=sys.stderr)
    out, err = capfd.readouterr()
    assert (out, err) == ("one\n", "two\n")


def test_what_was_said_first_is_read_first() -> None:
    """A long piece waits for the thread; a short one behind it would fit the pipe at once, and waits all the same."""
    reading, writing = os.pipe()
    stream = QueuedOutput(os.fdopen(writing, "w", closefd=False))
    long = "x" * 20_000 + "\n"
    stream.write(long)
    stream.write("behind it\n")
    text = b""
    while len(text) < len(long) + 10:
        text += os.read(reading, 1 << 20)
    assert text.endswith(b"x\nbehind it\n")
    stream.finish()
    os.close(writing)
    os.close(reading)
