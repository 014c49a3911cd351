"""What `kdproxy run` prints: the live line on a terminal, the bill at the end, and warnings."""

import os
import shutil
import sys
import termios
import time
from collections import deque
from decimal import Decimal
from typing import Any

from kdproxy.cli.child import is_foreground
from kdproxy.cli.options import counted, say

_WINDOW_SECONDS = 60.0
"""The rate of the last minute says how long the rest takes."""


def sums(bill: dict[str, Any]) -> str:
    """Return tokens and dollars of what was bought, as far as they are known."""
    parts = []
    if bill["input_tokens"] is not None:
        parts.append(f"{bill['input_tokens'] + bill['output_tokens']:,} tokens")
    if bill["bought_usd"] is not None:
        parts.append(f"${Decimal(bill['bought_usd']):.4f}")
    if bill["unpriced_answers"]:
        parts.append(f"{bill['unpriced_answers']:,} of unknown price")
    return ", ".join(parts)


def bill_line(bill: dict[str, Any]) -> str:
    """Return one line: calls, hits, what was bought, what failed."""
    parts = [f"{counted(bill['hits'], 'hit')} at no cost"]
    bought = f"{bill['bought']:,} bought"
    parts.append(f"{bought} ({sums(bill)})" if bill["bought"] else bought)
    for name, words in (("joined", "shared another's call"), ("uncached", "not cacheable"), ("failed", "failed")):
        if bill[name]:
            parts.append(f"{bill[name]:,} {words}")
    return f"{counted(bill['calls'], 'call')}: " + ", ".join(parts)


def live_line(bill: dict[str, Any], eta_seconds: float | None) -> str:
    """Return the live line."""
    parts = [counted(bill["calls"], "call"), counted(bill["hits"], "hit"), f"{bill['under_way']} waiting"]
    if bill["bought"]:
        parts.append(sums(bill))
    if bill["failed"]:
        parts.append(f"{bill['failed']} failed")
    if eta_seconds is not None:
        minutes = eta_seconds / 60
        parts.append(f"ETA {minutes:.0f} min" if minutes < 120 else f"ETA {minutes / 60:.1f} h")
    return "kdproxy: " + ", ".join(parts)


class Rate:
    """How long the expected calls will take."""

    def __init__(self, expected: int | None) -> None:
        self._expected = expected
        self._seen: deque[tuple[float, int]] = deque()

    def eta_seconds(self, calls: int, now: float) -> float | None:
        """Return the time that the rest takes at the rate of the last minute, or None."""
        self._seen.append((now, calls))
        while now - self._seen[0][0] > _WINDOW_SECONDS:
            self._seen.popleft()
        begin, before = self._seen[0]
        if self._expected is None or calls <= before or now <= begin:
            return None
        return max(0, self._expected - calls) * (now - begin) / (calls - before)


class LiveLine:
    """One line at the bottom of the terminal, rewritten each second; nothing if stderr is none.

    The command writes to the same terminal. The cursor is left at the line's beginning, so its next output overwrites
    it. Where the command reads single keys or draws a whole screen (no echo), nothing is shown.
    """

    def __init__(self, expected: int | None) -> None:
        self.is_shown = sys.stderr.isatty()
        self._rate = Rate(expected)
        self._has_drawn = False

    def show(self, bill: dict[str, Any]) -> None:
        """Draw it."""
        if not self._may_draw():
            return
        line = live_line(bill, self._rate.eta_seconds(bill["calls"], time.monotonic()))
        width = shutil.get_terminal_size().columns
        self._write(f"\r\x1b[2K{line[: width - 1]}\r")
        self._has_drawn = True

    def clear(self) -> None:
        """Remove it."""
        if self._has_drawn and self._may_draw():
            self._write("\r\x1b[2K")
        self._has_drawn = False

    def _may_draw(self) -> bool:
        # A write from the background would stop this process where the terminal is set so (stty tostop).
        if not self.is_shown or not is_foreground():
            return False
        try:
            modes = termios.tcgetattr(sys.stderr.fileno())[3]
        except (termios.error, OSError, ValueError):
            return False
        return bool(modes & termios.ECHO and modes & termios.ICANON)

    def _write(self, text: str) -> None:
        try:
            os.write(sys.stderr.fileno(), text.encode())
        except OSError:
            self.is_shown = False


def warn_of_no_call(base_url: str) -> None:
    """Say that the command ended without one call."""
    say(
        "the command ended without one call through kdproxy: nothing was cached, and what it bought elsewhere is not "
        "stored. Its base URL may be hard-coded, read from a .env file that overrides the environment, or kept in a "
        f"settings file. Make the client read OPENAI_BASE_URL (here {base_url}) or its own variable: docs/cli.md, run."
    )


def repeats_only(bill: dict[str, Any]) -> bool:
    """Whether an attempt asked only what earlier ones had asked, bought nothing, and left others of theirs unasked."""
    review = bill["review"]
    is_old = review["asked"] > 0 and review["asked"] == review["again"]
    return bool(is_old and review["left"] and not bill["bought"])


def warn_of_repeats(run: str, review: dict[str, Any]) -> None:
    """Say that a script which skips finished rows seems to have got answers that it has had already."""
    say(
        f"Warning: this attempt asked {counted(review['asked'], 'question')}, all of which earlier attempts of run "
        f"{run!r} had asked, and got the same samples from 0 again; {counted(review['left'], 'question')} of theirs "
        "stayed unasked. If the script skips rows that it has finished, these are answers that it has already had: "
        "start it with --continue, which continues the last attempt."
    )
