"""What the dashboard of a million steps costs: `python benchmarks/dashboard.py [--quick] [--output FILE]`.

Eight columns with noise, spikes and holes, and 10^4 windows of input statistics: ten panels. CPU of this process, the
median over rounds; reading the rows is not in it. The first picture, with matplotlib's start, is left out.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import report
from figure import Figure, Verdict, judged

from trainhooks.views import chart, page, panel, summary

SECONDS, PAGE_BYTES = 5.0, 3_000_000


def run_of(steps: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the metrics and the input statistics of a run."""
    noise = np.random.default_rng(1)
    step = np.arange(steps)
    trend = 1 + 3 * np.exp(-step / (steps / 10))
    metrics = pd.DataFrame(
        {
            "step": step,
            "train/loss": trend + noise.normal(0, 0.1, steps),
            "val/loss": np.where(step % 1_000 == 999, trend + 0.1, np.nan),
            "learning_rate": 1e-3 * (1 - step / steps),
            "grad_norm": noise.gamma(2, 0.5, steps),
            "tokens_per_second": noise.normal(9e3, 300, steps),
            "active_seconds": step * 0.5,
            "eta_seconds": (steps - step) * 0.5,
        }
    )
    windows = step[::100]
    distances = [
        f"{feature}/{kind}" for feature in ("length", "tokens", "labels", "logprobs") for kind in ("psi", "js")
    ]
    drift = pd.DataFrame({"step": windows, **{name: noise.gamma(1, 0.05, len(windows)) for name in distances}})
    return metrics, drift


def measure(steps: int, rounds: int) -> list[Figure]:
    metrics, drift = run_of(steps)
    seconds: dict[str, list[float]] = {"panels": [], "picture": [], "page": []}
    chart.png(panel.compose(metrics[:100], title="start"))
    for _ in range(rounds):
        board = _timed(seconds["panels"], lambda: panel.compose(metrics, title="run", drift=drift))
        picture = _timed(seconds["picture"], partial(chart.png, board))
        text = _timed(seconds["page"], partial(page.render, board, tables=(summary.summarise_columns(metrics),)))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    whole = sum(medians.values())
    parts = ", ".join(f"{name} {found:.2f} s" for name, found in medians.items())
    data: dict[str, Any] = {"steps": steps, "rounds": rounds, "seconds": seconds, "picture_bytes": len(picture)}
    return [
        Figure(
            work=f"trainhooks: dashboard of {steps:,} steps, CPU",
            figure=f"{whole:.2f} s",
            goal=f"<= {SECONDS:.0f} s",
            reference=parts,
            verdict=judged(whole <= SECONDS),
            data=data,
        ),
        Figure(
            work=f"trainhooks: its page, {len(board.panels)} panels",
            figure=f"{len(text.encode()) / 1e6:.2f} MB",
            goal=f"<= {PAGE_BYTES / 1e6:.0f} MB",
            verdict=judged(len(text.encode()) <= PAGE_BYTES),
        ),
    ]


def _timed(into: list[float], work: Callable[[], Any]) -> Any:
    begun = time.process_time()
    done = work()
    into.append(time.process_time() - begun)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10^5 steps, one round: to see that it runs")
    parser.add_argument("--output", type=Path, help="write the figures there")
    options = parser.parse_args()
    begun = time.monotonic()
    figures = measure(*(10**5, 1) if options.quick else (10**6, 5))
    report.table(figures, "the dashboard of a long run")
    if options.output:
        with tempfile.TemporaryDirectory() as scratch:
            seconds = time.monotonic() - begun
            report.save(figures, options.output, Path(scratch), is_quick=options.quick, seconds=seconds)
    return int(any(figure.verdict is Verdict.MISSED for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
