"""What a session adds to a step beside `update_metrics`: `python benchmarks/training_steps.py [--quick]`.

Digests for the resume certificate and the lineage are timed where they are made, in a small training, and set against
the rest of the loop: loops with and without them differ by more from round to round than by these. The loader's own
order and seeds are set against a plain DataLoader's, in turns. Counted is the CPU time of the loop's own thread.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import report
import torch
from figure import Figure, Verdict, judged
from torch import Tensor, nn
from torch.utils.data import DataLoader

from trainhooks import training_progress_context
from trainhooks.session.feed import Feed

STEP_US = 500.0
"""0.5 % of a step of 100 ms."""
SAMPLES, BATCH = 4_096, 32
KEYS = [f"{number:064x}" for number in range(SAMPLES)]


class Rows:
    """Samples of so many floats, with the columns of `kdproxy export`."""

    def __init__(self, width: int) -> None:
        self.values = torch.randn(SAMPLES, 64)
        self.times = width // 64

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": self.values[index].repeat(self.times), "key": KEYS[index], "ordinal": 0}


PARTS = {"digests": ("digests",), "lineage": ("made_of", "asked_for")}
"""What of a session is measured, by the methods that do it."""


@contextmanager
def watched(names: tuple[str, ...]) -> Iterator[list[int]]:
    """Collect the CPU time of each call of these methods, in nanoseconds."""
    took: list[int] = []

    def watching(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            begun = time.thread_time_ns()
            result = method(*given)
            took.append(time.thread_time_ns() - begun)
            return result

        return call

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(Feed, name, watching(getattr(Feed, name))))
        yield took


def session_us(part: str, width: int, steps: int, out: Path) -> tuple[float, float]:
    """Return the CPU time of one step of a small training in a session and of a part in it, in microseconds."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    state = {"model": model, "optimizer": optimizer}
    with (
        watched(PARTS[part]) as took,
        training_progress_context({"seed": 1}, out, steps, state=state) as progress,
    ):
        progress.loader(Rows(width), batch_size=BATCH)
        begun = 0
        for step, batch in progress.steps():
            if step == steps // 10:  # what is set up once is not counted
                begun = time.thread_time_ns()
                took.clear()
            loss = _train(model, optimizer, batch["x"])
            progress.update_metrics(step=step, loss=loss)
        counted = steps - steps // 10
        return (time.thread_time_ns() - begun) / 1e3 / counted, sum(took) / 1e3 / counted


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
    loss: Tensor = model(x[:, :64]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def loading_us(is_ours: bool, source: Any, batches: int) -> float:
    """Return the CPU time of one sample, loaded in the main process, in microseconds."""
    loader: Any = DataLoader(source, batch_size=BATCH, shuffle=True)
    if is_ours:
        feed = Feed(1)
        feed.open(source, batch_size=BATCH)
        loader = feed.batches()
    given = iter(loader)
    next(given)
    begun = time.thread_time_ns()
    for _ in range(batches):
        next(given)
    return (time.thread_time_ns() - begun) / 1e3 / (batches * BATCH)


class Tokenised:
    """A sample that costs what splitting and numbering a short text does."""

    text = "the teacher said that a sky is blue since short waves are scattered more than long ones " * 8

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([hash(word) % 32_000 for word in self.text.split()])


def measure(steps: int, rounds: int, scratch: Path) -> tuple[list[Figure], dict[str, Any]]:
    """Measure each shape with and without each part, in turn."""
    raw: dict[str, Any] = {}
    figures = []
    for title, width in (("32 KB", 256), ("8 MB", 65_536)):
        for part in PARTS:
            where = scratch / f"{title}-{part}"
            seen = [session_us(part, width, steps, where / str(number)) for number in range(rounds)]
            raw[f"{part}, batch of {title}"] = seen
            figures.append(_part(f"{part}, batch of {title}", seen))
    for title, source in (("a short row", Rows(64)), ("a tokenised text", Tokenised())):
        pairs = [(loading_us(True, source, steps // 10), loading_us(False, source, steps // 10)) for _ in range(rounds)]
        raw[f"loading {title}"] = pairs
        figures.append(_loading(f"loading a sample, {title}", pairs))
    return figures, raw


def _part(work: str, seen: list[tuple[float, float]]) -> Figure:
    whole, part = (statistics.median(each) for each in zip(*seen, strict=True))
    return Figure(
        work=work,
        goal=f"<= {STEP_US:.0f} us",
        figure=f"{part:.0f} us a step",
        reference=f"{whole - part:.0f} us the same loop without",
        cpu_microseconds=whole,
        reference_cpu_microseconds=whole - part,
        cpu_ratio=statistics.median(whole / (whole - part) for whole, part in seen),
        verdict=judged(part <= STEP_US),
    )


def _loading(work: str, pairs: list[tuple[float, float]]) -> Figure:
    ours, plain = (statistics.median(each) for each in zip(*pairs, strict=True))
    return Figure(
        work=work,
        goal="",
        figure=f"{ours:.1f} us",
        reference=f"{plain:.1f} us DataLoader(shuffle=True)",
        cpu_microseconds=ours,
        reference_cpu_microseconds=plain,
        cpu_ratio=statistics.median(one / other for one, other in pairs),
        verdict=Verdict.REPORTED,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it runs")
    parser.add_argument("--steps", type=int, default=1_000, help="in each round; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="write the figures there")
    options = parser.parse_args()
    steps, rounds = (100, 1) if options.quick else (options.steps, options.rounds)
    torch.set_num_threads(1)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainhooks-bench-", dir="/var/tmp") as scratch:
        figures, raw = measure(steps, rounds, Path(scratch))
        report.table(figures, "a small training on one thread; CPU time of the loop's own thread")
        if options.output:
            seconds = time.monotonic() - begun
            report.save(
                figures,
                options.output,
                Path(scratch),
                is_quick=options.quick,
                seconds=seconds,
                steps=steps,
                rounds=raw,
            )
    return int(any(figure.verdict is Verdict.MISSED for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
