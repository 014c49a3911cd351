"""Kills one life after the other, at each point in turn, and asks the oracle after each."""

import json
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.e2e.crash.lives import Forks, Life
from tests.e2e.crash.oracle import Oracle

_LOSS = ("answers lost", "calls lost", "kdproxy: lost")
CHECKED = 8
"""How many of the newest answers, and of the others, each start checks; the last start checks all."""


@dataclass(slots=True)
class Report:
    """What a campaign did and found."""

    seed: int
    kills: int = 0
    power_cuts: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    """Kills by point."""
    seen: set[str] = field(default_factory=set)
    checked: int = 0
    lost: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return it as lines, the histogram included."""
        hit = "".join(f"  {count:4} {label}\n" for label, count in sorted(self.phases.items()))
        return (
            f"seed={self.seed} kills={self.kills} power_cuts={self.power_cuts} phases={len(self.phases)}"
            f" of {len(self.seen)} checked={self.checked} lost={self.lost} wrong={self.wrong}\n{hit}"
            + "\n".join(self.problems[:20])
        )

    @property
    def is_clean(self) -> bool:
        return (self.lost, self.wrong, self.problems) == (0, 0, [])

    def missed(self) -> set[str]:
        return self.seen - set(self.phases)

    def json(self) -> str:
        return json.dumps({"seed": self.seed, "kills": self.kills, "power_cuts": self.power_cuts,
            "phases": dict(sorted(self.phases.items())), "answers_checked": self.checked, "lost": self.lost,
            "wrong": self.wrong})  # fmt: skip


@dataclass(slots=True)
class Campaign:
    """Lives on one data directory."""

    forks: Forks
    data_dir: Path
    oracle: Oracle
    rng: Random
    report: Report
    bug: str | None = None
    power: float = 0.0
    """How many of the kills are power cuts."""

    async def kill_at(self, label: str | None, *, nth: int, from_start: bool) -> None:
        """One life, until it dies at a point; if it does not get there, it is killed when all was asked."""
        life = self._start(label=label, nth=nth, is_armed_later=not from_start)
        if await life.listening():
            await self.oracle.check(life, CHECKED)
            self.forks.arm(life)
            await self.oracle.work(life)
            life.kill()
        await self._end(life)

    async def kill_at_birth(self) -> None:
        """Kill at each point that only the first start of a directory passes; the next start must serve."""
        first, second = [await self._census() for _ in range(2)]
        for number, label in enumerate(sorted(first - second)):
            place = self.data_dir.with_name(f"new-{number}") / self.data_dir.name
            life = self.forks.start(self.oracle.teacher.base_url, place, label=label)
            if await life.listening():
                life.kill()
            await self._end(life)
            life = self.forks.start(self.oracle.teacher.base_url, place, nth=0)
            if await life.listening():
                await self.oracle.ask_twice(life)
                life.kill()
            await self._end(life)

    async def fail_at(self, fault: str, nth: int, *, label: str | None = None) -> bool:
        """One life in which the n-th operation on files fails, then an orderly end; returns whether it got there.

        A start may be refused, in a sentence. What was delivered while the disk refused is written before the end.
        """
        life = self._start(fault=fault, nth=nth, label=label)
        if await life.listening():
            await self.oracle.check(life, CHECKED)
            await self.oracle.work(life)
            life.kill(signal.SIGTERM)
        code = await life.ended()
        _, failed, _ = life.reached()
        is_refused = not life.address and code == 1 and failed is not None and "kdproxy: " in life.said()
        if (code != 0 and not is_refused) or "Traceback" in life.said() or any(words in life.said() for words in _LOSS):
            self.oracle.problems.append(f"{fault} at {failed}: exit {code}\n{life.said()}")
        if failed is not None:
            self.report.phases[f"{fault} {failed}"] += 1
        return failed is not None

    async def _census(self) -> set[str]:
        life = self._start(nth=0)
        await life.listening()
        life.kill()
        await life.ended()
        return life.reached()[0]

    async def kill_at_each(self, *, most: int) -> None:
        """Kill at each point, new points included, in at most so many lives."""
        await self._census()  # the points of a first start are those of `kill_at_birth`
        await self.kill_at(None, nth=0, from_start=True)
        tries: Counter[str] = Counter()
        for _ in range(most):
            left = sorted(self.report.missed())
            if not left:
                break
            fewest = min(tries[label] for label in left)
            label = self.rng.choice([label for label in left if tries[label] == fewest])
            # The first occurrence is often at the start, and some have no other.
            is_first = tries[label] % 2 == 0
            tries[label] += 1
            if "ftruncate" in label:  # only a start after a torn line cuts it off
                await self.kill_at("half write api_recovery.jsonl answer", nth=1, from_start=False)
                await self.kill_at(label, nth=1, from_start=True)
                continue
            nth = 1 if is_first else self.rng.randint(1, 4)
            await self.kill_at(label, nth=nth, from_start=tries[label] % 4 < 2)

    async def finish(self) -> Report:
        """Check everything once more, at a start that nothing disturbs."""
        life = self._start(nth=0)
        if await life.listening():
            await self.oracle.check(life)
            life.kill(signal.SIGTERM)
        if await life.ended() != 0 or "Traceback" in life.said():
            self.oracle.problems.append(f"the last start: exit {life.code}\n{life.said()}")
        self.oracle.check_bill()
        report = self.report
        report.checked, report.lost, report.wrong = self.oracle.checked, self.oracle.lost, self.oracle.wrong
        report.problems = self.oracle.problems
        return report

    def _start(self, **plan: Any) -> Life:
        return self.forks.start(self.oracle.teacher.base_url, self.data_dir, bug=self.bug, **plan)

    async def _end(self, life: Life) -> None:
        code = await life.ended()
        seen, killed, _ = life.reached()
        self.report.seen |= seen
        self.report.kills += 1
        if code != -signal.SIGKILL:
            self.oracle.problems.append(f"exit {code} in place of a kill at {killed}\n{life.said()}")
        if "Traceback" in life.said():
            self.oracle.problems.append(f"killed at {killed}:\n{life.said()}")
        if killed is None:
            return
        self.report.phases[killed] += 1
        if self.rng.random() < self.power:
            self.report.power_cuts += 1
            life.cut_power()
            self.oracle.forget_order()
