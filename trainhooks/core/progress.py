"""How far a training is, how fast it goes, when it ends: from this attempt's rows and the sums of earlier ones."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainhooks.core import timing
from trainhooks.core.number import as_float
from trainhooks.core.rate import StepRate
from trainhooks.core.timing import WORK, Phase
from trainhooks.core.trend import WINDOW, Trend, trend

_COUNTED = 64
"""How many recent rows samples and tokens per step are averaged over."""
COUNTERS = ("samples_processed", "tokens_processed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A training at one moment. Seconds are by phase; None is unknown."""

    step: int
    """Steps that are finished, over all attempts."""
    total_steps: int
    percent: float
    loss: float | None
    loss_trend: Trend
    learning_rate: float | None
    grad_norm: float | None
    step_seconds: float | None
    samples_per_second: float | None
    tokens_per_second: float | None
    eta_seconds: float | None
    """Wall clock to the end, with checkpoints and evaluations at their share so far and without pauses."""
    seconds: Mapping[str, float]
    """Of all attempts, by phase."""
    wall_seconds: float
    """Of all attempts, pauses and the time between attempts left out."""
    attempt: int
    attempt_seconds: Mapping[str, float]
    failures: int = 0
    recoveries: int = 0
    down_seconds: float = 0.0
    is_down: bool = False
    last_failure: str | None = None
    problems: tuple[str, ...] = ()
    """What the user should know now, such as a full disk."""


@dataclass(slots=True)
class Progress:
    """The statistics of one attempt. Fed in the order of steps; samples and tokens count up over the training."""

    total_steps: int
    attempt: int = 1
    step: int = 0
    is_finished: bool = False
    """Whether the training is done whatever its count of steps says, as by early stopping."""
    earlier_seconds: Mapping[str, float] = field(default_factory=dict)
    """Of earlier attempts, by phase."""
    rate: StepRate = field(default_factory=StepRate)
    _latest: dict[str, float] = field(default_factory=dict)
    _latest_step: dict[str, int] = field(default_factory=dict)
    """Of which step each metric's last value is."""
    _losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _counts: dict[str, deque[tuple[int, float]]] = field(
        default_factory=lambda: {name: deque(maxlen=_COUNTED) for name in COUNTERS}
    )

    def row(self, step: int, members: Mapping[str, Any]) -> None:
        """Take in what a step measured; what comes late, as an evaluation may, replaces nothing newer."""
        for name, value in members.items():
            if isinstance(value, int | float) and step >= self._latest_step.get(name, 0):
                self._latest_step[name] = step
                self._latest[name] = number = as_float(value)
                if name == "loss":
                    self._losses.append(number)
        for name, seen in self._counts.items():
            if isinstance(value := members.get(name), int | float) and math.isfinite(value := as_float(value)):
                if seen and step < seen[-1][0]:
                    continue
                if seen and (step == seen[-1][0] or value < seen[-1][1]):
                    seen.clear()  # a counter that restarts
                seen.append((step, value))

    def latest(self) -> dict[str, float]:
        """Return every metric's last value."""
        return dict(self._latest)

    def go_to(self, step: int) -> None:
        """Continue with `step` finished steps: what was measured behind them is no later than what comes."""
        self.step = step
        self._latest_step.clear()
        for seen in self._counts.values():
            seen.clear()

    def tick(self, steps: int, working_seconds: float) -> None:
        """Note that `steps` are finished, after `working_seconds` of work in this attempt."""
        self.step = steps
        self.rate.tick(steps, working_seconds)

    def summary(self, seconds: Mapping[Phase, float], **more: Any) -> Summary:
        """Put it together. `seconds` are those of this attempt; `more` are further members of the summary."""
        all_seconds = {phase.value: self.earlier_seconds.get(phase, 0.0) + seconds[phase] for phase in Phase}
        step_seconds = self.rate.seconds_per_step()
        return Summary(
            step=self.step,
            total_steps=self.total_steps,
            percent=100.0 if self.is_finished else 100.0 * self.step / self.total_steps,
            loss=self._latest.get("loss"),
            loss_trend=trend(tuple(self._losses)),
            learning_rate=self._latest.get("learning_rate"),
            grad_norm=self._latest.get("grad_norm"),
            step_seconds=step_seconds,
            samples_per_second=self._per_second("samples_processed", step_seconds),
            tokens_per_second=self._per_second("tokens_processed", step_seconds),
            eta_seconds=self._eta(step_seconds, all_seconds),
            seconds=all_seconds,
            wall_seconds=timing.total(all_seconds, without=(Phase.PAUSED,)),
            attempt=self.attempt,
            attempt_seconds={phase.value: seconds[phase] for phase in Phase},
            **more,
        )

    def _per_second(self, name: str, step_seconds: float | None) -> float | None:
        seen = self._counts[name]
        if not step_seconds or len(seen) < 2:
            return None
        return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0]) / step_seconds

    def _eta(self, step_seconds: float | None, seconds: Mapping[str, float]) -> float | None:
        left = max(0, self.total_steps - self.step)
        if left == 0 or self.is_finished:
            return 0.0
        if step_seconds is None:
            return None
        work = sum(seconds[phase] for phase in WORK)
        beside = seconds[Phase.CHECKPOINT] + seconds[Phase.EVALUATION]
        return left * step_seconds * (1.0 + (beside / work if work > 0 else 0.0))
