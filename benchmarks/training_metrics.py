"""What recording a step costs the training's thread: `python benchmarks/training_metrics.py [--quick]`.

`make bench` installs the others. Ten float metrics a step; between the steps about a millisecond of native work that
lets go of the interpreter's lock, as a training step does. Each recorder runs in a process of its own; rounds
alternate, so that a slow minute of the machine meets all of them. CPU is of the whole process over the loop, threads
and helpers included, the work between the steps left out.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import report
from figure import Figure, Verdict

LOG = Callable[[int], None]
MEDIAN_US, P99_US, IDLE_MB = 5.0, 50.0, 10.0
_WORK = bytes(1 << 20)
_EXTRA = ("a", "b", "c", "d", "e")


def _members(step: int) -> dict[str, float]:
    named = {"loss": 0.5 + step * 1e-6, "learning_rate": 1e-3, "samples": float(step), "tokens": float(step)}
    return {**named, "grad_norm": 1.5, **dict.fromkeys(_EXTRA, 0.25)}


@contextmanager
def trainhooks(out: Path) -> Any:
    from trainhooks import ProgressTracker

    tracker = ProgressTracker({}, out, 10**9)

    def log(step: int) -> None:
        tracker.update_metrics(
            step=step,
            loss=0.5 + step * 1e-6,
            learning_rate=1e-3,
            samples_processed=step,
            tokens_processed=step,
            grad_norm=1.5,
            a=0.25,
            b=0.25,
            c=0.25,
            d=0.25,
            e=0.25,
        )

    yield log
    tracker.close()


@contextmanager
def trackio(out: Path) -> Any:
    os.environ |= {"TRACKIO_DIR": str(out), "HF_HUB_OFFLINE": "1"}
    import trackio

    trackio.init(project="bench", auto_log_cpu=False)
    yield lambda step: trackio.log(_members(step), step=step)
    trackio.finish()


@contextmanager
def wandb_offline(out: Path) -> Any:
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    import wandb

    run = wandb.init(project="bench", dir=out)
    yield lambda step: run.log(_members(step), step=step)
    run.finish()


@contextmanager
def tensorboard(out: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out))

    def log(step: int) -> None:
        for name, value in _members(step).items():
            writer.add_scalar(name, value, step)

    yield log
    writer.close()


@contextmanager
def json_and_flush(out: Path) -> Any:
    with (out / "metrics.jsonl").open("w", encoding="utf-8") as file:

        def log(step: int) -> None:
            file.write(json.dumps({"step": step, "at": time.time(), **_members(step)}) + "\n")
            file.flush()

        yield log


RECORDERS: dict[str, Callable[[Path], AbstractContextManager[LOG]]] = {
    "trainhooks": trainhooks,
    "json + flush": json_and_flush,
    "trackio": trackio,
    "tensorboard": tensorboard,
    "wandb offline": wandb_offline,
}


def child(name: str, steps: int, out: Path) -> None:
    """Run one loop and print its figures."""
    if name == "idle":
        print(json.dumps(_idle(out)))
        return
    took = []
    with ExitStack() as stack, open(os.devnull, "w") as silence:
        says, sys.stdout = sys.stdout, silence
        log = stack.enter_context(RECORDERS[name](out))
        for step in range(100):
            log(step)
        time.sleep(1.0)  # what starts beside has started
        before = _cpu_seconds()
        for step in range(100, steps + 100):
            begun = time.perf_counter_ns()
            log(step)
            took.append(time.perf_counter_ns() - begun)
            hashlib.sha256(_WORK)
        cpu = _cpu_seconds() - before - _work_seconds(steps)
        sys.stdout = says
    took.sort()
    figures = {
        "median_us": took[steps // 2] / 1e3,
        "p99_us": took[steps * 99 // 100] / 1e3,
        "longest_us": took[-1] / 1e3,
    }
    print(json.dumps({**figures, "cpu_us": cpu / steps * 1e6}))


def _idle(out: Path) -> dict[str, float]:
    """Memory that an open tracker adds to an interpreter."""
    before = _resident_mb()
    with trainhooks(out):
        time.sleep(2.0)
        return {"idle_mb": _resident_mb() - before}


def _resident_mb() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1e3


def _work_seconds(steps: int) -> float:
    """CPU time of the work between the steps."""
    before = _cpu_seconds()
    for _ in range(steps // 10):
        hashlib.sha256(_WORK)
    return (_cpu_seconds() - before) * 10


def _cpu_seconds() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def measure(steps: int, rounds: int, scratch: Path) -> tuple[list[Figure], dict[str, Any]]:
    """Run every recorder in turn, again and again; the median over rounds counts."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in RECORDERS}
    for number in range(rounds):
        for name in RECORDERS:
            seen[name].append(_run(name, steps, scratch / f"{name}-{number}"))
            print(f"round {number + 1} of {rounds}, {name}: {seen[name][-1]}", file=sys.stderr)
    idle = _run("idle", steps, scratch / "idle")["idle_mb"]
    over = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]} for name, found in seen.items()
    }
    ours, baseline = over["trainhooks"], over["json + flush"]
    figures = [
        _judged("trainhooks: a step, median", MEDIAN_US, ours["median_us"], baseline["median_us"], ours["cpu_us"]),
        _judged("trainhooks: a step, p99", P99_US, ours["p99_us"], baseline["p99_us"], None),
        _figure("trainhooks: memory of an idle tracker", f"<= {IDLE_MB:.0f} MB", f"{idle:.1f} MB", idle <= IDLE_MB),
    ]
    for name, each in over.items():
        if name != "trainhooks":
            text = f"{each['median_us']:.1f} us, p99 {each['p99_us']:.0f} us"
            ratio = each["median_us"] / ours["median_us"]
            figures.append(_figure(f"{name}: a step", "", text, None, ratio=ratio, cpu=each["cpu_us"]))
    return figures, {"over_rounds": over, "rounds": seen, "idle_mb": idle}


def _run(name: str, steps: int, out: Path) -> dict[str, float]:
    out.mkdir(parents=True)
    command = [sys.executable, __file__, "--child", name, "--steps", str(steps), "--output", str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _judged(work: str, goal: float, found: float, baseline: float, cpu: float | None) -> Figure:
    reference = f"{baseline:.1f} us json + flush"
    return _figure(
        work,
        f"<= {goal:.0f} us",
        f"{found:.1f} us",
        found <= goal,
        reference=reference,
        ratio=found / baseline,
        cpu=cpu,
    )


def _figure(
    work: str,
    goal: str,
    figure: str,
    is_met: bool | None,
    *,
    reference: str = "",
    ratio: float | None = None,
    cpu: float | None = None,
) -> Figure:
    verdict = Verdict.REPORTED if is_met is None else Verdict.MET if is_met else Verdict.MISSED
    return Figure(
        work=work,
        goal=goal,
        figure=figure,
        reference=reference,
        ratio=ratio,
        cpu_microseconds=cpu,
        verdict=verdict,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it runs")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=5_000, help="in each round; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="write the figures there")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.steps, options.output)
        return 0
    steps, rounds = (500, 1) if options.quick else (options.steps, options.rounds)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainhooks-bench-", dir="/var/tmp") as scratch:
        figures, raw = measure(steps, rounds, Path(scratch))
        report.table(figures, "ten float metrics a step, a millisecond of native work between two steps")
        if options.output:
            seconds = time.monotonic() - begun
            report.save(
                figures, options.output, Path(scratch), is_quick=options.quick, seconds=seconds, steps=steps, **raw
            )
    return int(any(figure.verdict is Verdict.MISSED for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
