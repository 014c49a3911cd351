"""The boards whose pictures are kept: one made-up run, seen whole, with drift, with holes, and stopped twice.

Every number comes from arithmetic and one seeded generator, so that each machine draws the same run.
"""

import numpy as np
import pandas as pd

from trainhooks.views.board import Board
from trainhooks.views.panel import compose

STEPS = 2_400
SUBTITLE = "2,400 steps · 3 epochs"


def metrics() -> pd.DataFrame:
    """Return a run of 2,400 steps that begins to overfit in the third epoch."""
    noise = np.random.default_rng(7)
    step = np.arange(STEPS)
    loss = 1.25 + 3.0 * np.exp(-step / 350) + noise.normal(0, 0.09, STEPS)
    validation = 1.34 + 3.0 * np.exp(-step / 330) + np.clip(step - 1500, 0, None) * 2.6e-4
    seconds = np.cumsum(0.9 + noise.exponential(0.08, STEPS))
    norm = 0.8 + 1.6 * np.exp(-step / 200) + noise.gamma(2.0, 0.09, STEPS)
    norm[[731, 1890]] = 9.4, 6.1
    return pd.DataFrame(
        {
            "step": step,
            "epoch": step // 800,
            "train/loss": loss,
            "val/loss": np.where(step % 100 == 99, validation, np.nan),
            "learning_rate": np.where(step < 120, step / 120, 0.5 + 0.5 * np.cos(np.pi * step / STEPS)) * 3e-4,
            "tokens_per_second": 8_200 + noise.normal(0, 260, STEPS),
            "grad_norm": norm,
            "active_seconds": seconds,
            "eta_seconds": (STEPS - step) * (seconds / (step + 1)),
        }
    )


def drift() -> pd.DataFrame:
    """Return one row a window of 100 steps; the inputs' length shifts in the last third."""
    step = np.arange(0, STEPS, 100)
    late = np.clip(step - 1500, 0, None) / 900
    wave = np.sin(step / 180)
    return pd.DataFrame(
        {
            "step": step,
            "length/psi": 0.03 + 0.01 * wave + 0.42 * late,
            "tokens/psi": 0.06 + 0.02 * wave,
            "labels/psi": 0.02 + 0.012 * wave**2,
            "logprobs/psi": 0.05 + 0.11 * late,
            "length/js": 0.01 + 0.005 * wave + 0.11 * late,
            "tokens/js": 0.02 + 0.006 * wave,
            "labels/js": 0.008 + 0.004 * wave**2,
            "logprobs/js": 0.014 + 0.03 * late,
        }
    ).clip(lower=0.0)


def six() -> Board:
    """The standard form."""
    return compose(metrics(), title="distil-qwen-0.5b", subtitle=SUBTITLE)


def ten() -> Board:
    """The form with input statistics."""
    return compose(metrics(), title="distil-qwen-0.5b", subtitle=SUBTITLE, drift=drift())


def degraded() -> Board:
    """No validation, no gradient norm, no learning rate, no input statistics."""
    return compose(
        metrics().drop(columns=["val/loss", "grad_norm", "learning_rate"]),
        title="distil-qwen-0.5b",
        subtitle="2,400 steps · 3 epochs",
    )


def stopped() -> Board:
    """Stopped twice: once without a loss, once with 260 steps trained again."""
    return compose(metrics(), title="distil-qwen-0.5b", subtitle=SUBTITLE, resumes=[620, 1440], rewinds=[(1440, 1700)])
