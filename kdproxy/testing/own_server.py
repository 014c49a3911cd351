"""Models of self-hosted inference servers: continuous batching, and a few slots with a queue.

They wait on the running loop's clock, so they run in virtual time (`kdproxy.testing.virtual`) and in real time alike.

    server = Batching()
    await server.serve(tokens=250)
"""

import asyncio
import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TypedDict

STEP_SECONDS = 0.008
STEP_SECONDS_EACH = 0.000_06
RUNNING = 256
"""vLLM's `max_num_seqs`."""


class Spread(TypedDict):
    """How long answers are, in tokens, lognormal."""

    median: float
    sigma: float
    most: float


CHAT: Spread = {"median": 256, "sigma": 0.77, "most": 4_096}
REASONING: Spread = {"median": 180, "sigma": 1.2, "most": 16_384}
"""Lengths of answers, lognormal."""


@dataclass(slots=True)
class Batching:
    """Runs a number of requests at once, one token each per step; more requests make a step slower. The rest queue."""

    running: int = RUNNING
    step_seconds: float = STEP_SECONDS
    step_seconds_each: float = STEP_SECONDS_EACH
    most_at_once: int = 0
    """Running and waiting."""
    _step: int = 0
    _ends: list[tuple[int, int, asyncio.Future[None]]] = field(default_factory=list)
    _waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _task: "asyncio.Task[None] | None" = None

    async def serve(self, tokens: int) -> None:
        """Return once that many tokens are generated. Cancelling frees the place."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((max(1, tokens), done))
        self.most_at_once = max(self.most_at_once, len(self._waiting) + len(self._ends))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        await done

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time()
        while self._ends or self._waiting:
            while self._waiting and len(self._ends) < self.running:
                tokens, done = self._waiting.popleft()
                if not done.done():
                    heapq.heappush(self._ends, (self._step + tokens, next(self._numbers), done))
            if not self._ends:
                continue
            # By the clock and not by sleeps, which are late on a busy machine; steps without changes are merged.
            steps = max(1, self._ends[0][0] - self._step) if not self._waiting or self._is_full else 1
            steps = min(steps, 8)
            at += steps * (self.step_seconds + self.step_seconds_each * len(self._ends))
            await asyncio.sleep(max(0.0, at - loop.time()))
            self._step += steps
            while self._ends and (self._ends[0][0] <= self._step or self._ends[0][2].done()):
                done = heapq.heappop(self._ends)[2]
                if not done.done():
                    done.set_result(None)

    @property
    def _is_full(self) -> bool:
        return len(self._ends) >= self.running


@dataclass(slots=True)
class Slots:
    """Answers a number of requests at once, each in the same time; the rest queue (llama.cpp)."""

    slots: int
    seconds: float
    _free: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.slots)

    async def serve(self, tokens: int) -> None:
        """Return once it is answered. Cancelling frees the slot."""
        async with self._free:
            await asyncio.sleep(self.seconds)


def lengths(count: int, *, median: float, sigma: float, most: float, seed: int = 1) -> list[int]:
    """Return lognormal lengths of answers in tokens."""
    randomness = random.Random(seed)  # noqa: S311 - a model, not a secret
    drawn = (randomness.lognormvariate(math.log(median), sigma) for _ in range(count))
    return [max(1, round(min(most, each))) for each in drawn]
