"""The table for people and the result file: machine, commit, command and every figure; no host name."""

import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson
from figure import Figure, Verdict
from process import HERE, LOAD_CORE, SERVER_CORE
from rich.console import Console
from rich.table import Table

RESULTS = HERE / "results"
TITLE = "1 KB request, 1.5 KB reply; one core for the server, one for load and teacher"
_LIBRARIES = (
    *("aiohttp", "diskcache", "multidict", "orjson", "tenacity", "uvloop", "yarl", "torch"),
    *("tensorboard", "trackio", "wandb"),
)
_STYLES = {Verdict.MET: "green", Verdict.MISSED: "red", Verdict.REPORTED: "dim"}


def table(figures: list[Figure], title: str = TITLE) -> None:
    """Print the figures."""
    shown = Table(title=title)
    for column in ("work", "goal", "figure", "reference", "ratio", "CPU us", "CPU ratio", ""):
        shown.add_column(column, justify="left" if column in ("work", "goal") else "right")
    for figure in figures:
        ratio, cpu_ratio = ("" if found is None else f"{found:.2f} x" for found in (figure.ratio, figure.cpu_ratio))
        verdict = f"[{_STYLES[figure.verdict]}]{figure.verdict}[/]"
        shown.add_row(figure.work, figure.goal, figure.figure, figure.reference, ratio, figure.cpu, cpu_ratio, verdict)
    # Piped output is not folded to 80 columns.
    Console(width=None if sys.stdout.isatty() else 150).print(shown)


def default_path() -> Path:
    """Return where a whole run of this day, machine and commit is kept."""
    kind = f"{os.cpu_count()}cpu-{platform.machine()}-py{sys.version_info.major}.{sys.version_info.minor}"
    return RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{kind}-{commit()[:7] or 'unknown'}.json"


def save(figures: list[Figure], path: Path, scratch: Path, *, is_quick: bool, seconds: float, **more: Any) -> None:
    """Write the result file; `more` are further members of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    members = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "seconds": seconds,
        "commit": commit(),
        "is_dirty": is_dirty(),
        "is_quick": is_quick,
        "machine": machine(scratch),
        "figures": [asdict(figure) for figure in figures],
        **more,
    }
    path.write_bytes(orjson.dumps(_rounded(members), option=orjson.OPT_INDENT_2) + b"\n")


def load(path: Path, *, is_quick: bool) -> list[Figure]:
    """Return the figures of a run that was broken off. Exits where they are not of this commit and kind."""
    if not path.exists():
        return []
    members = orjson.loads(path.read_bytes())
    if (members["commit"], members["is_dirty"], members["is_quick"]) != (commit(), is_dirty(), is_quick):
        sys.exit(f"{path} is of another commit or kind of run: it cannot be continued")
    return [
        Figure(**{**row, "ratios": tuple(row["ratios"]), "verdict": Verdict(row["verdict"])})
        for row in members["figures"]
    ]


def commit() -> str:
    return _git("rev-parse", "HEAD")


def is_dirty() -> bool:
    return bool(_git("status", "--porcelain", "--", "kdproxy", "trainhooks", "benchmarks/*.py"))


def machine(scratch: Path) -> dict[str, Any]:
    """Describe the machine without naming it."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "server_core": SERVER_CORE,
        "load_core": LOAD_CORE,
        "system": platform.system(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name)) is not None},
        "sync_microseconds": _sync_microseconds(scratch),
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _sync_microseconds(scratch: Path) -> float:
    """Median time that the disk takes to make a journal line durable: it bounds every miss."""
    taken = []
    sync = getattr(os, "fdatasync", os.fsync)
    descriptor = os.open(scratch / "sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(51):
            began = time.perf_counter()
            os.write(descriptor, b"-" * 2_600)
            sync(descriptor)
            taken.append((time.perf_counter() - began) * 1e6)
    finally:
        os.close(descriptor)
    return sorted(taken)[25]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
