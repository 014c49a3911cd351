"""`make demo`: distil from a real model on this machine, kill everything midway, go on, do it all again, read the bill.

No API key and no network: the teacher is SmolLM2-135M-Instruct on one core (local_teacher.py), and where its wheels do
not exist the scripted teacher of kdproxy.testing stands in. The script in the middle, distill_openai.py, knows nothing
of the proxy and has no resume code. Where torch is installed a student is trained, too, and killed (student.py).
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import local_teacher
import student
from bill import Leg, PaidTeacher, at_scale, bill, paid_for
from child import Child, ChildError, free_port
from rich.console import Console

HERE = Path(__file__).parent
READY_SECONDS = 60
LEG_SECONDS = 300
WHOLE_DEMO_SECONDS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Who answers, and how to read from it what it has done."""

    command: list[str]
    model: str
    port: int
    ready_path: str
    count_path: str
    unit: str

    @property
    def url(self) -> str:
        """As an SDK takes it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def count(self) -> int:
        """Ask the teacher itself how much it has answered so far."""
        with urlopen(f"http://127.0.0.1:{self.port}{self.count_path}", timeout=10) as reply:
            text = reply.read().decode()
        if self.unit == "calls":
            return int(json.loads(text)["total"])
        counts = dict(line.split() for line in text.splitlines() if line and not line.startswith("#"))
        return int(float(counts["llamacpp:tokens_predicted_total"]))


def choose_teacher(*, scripted: bool) -> Teacher:
    """Take the local model where it is installed, else the scripted teacher."""
    port = free_port()
    if not scripted and local_teacher.is_installed():
        command = [sys.executable, str(HERE / "local_teacher.py"), "--port", str(port)]
        return Teacher(
            command=[*command, "--max-seconds", str(WHOLE_DEMO_SECONDS)],
            model=local_teacher.MODEL,
            port=port,
            ready_path="/health",
            count_path="/metrics",
            unit="tokens written",
        )
    command = [sys.executable, "-m", "kdproxy.testing.teacher", "--port", str(port)]
    return Teacher(
        command=[*command, "--latency-ms", "150", "--event-ms", "5", "--words", "40"],
        model="scripted-teacher",
        port=port,
        ready_path="/_teacher/calls",
        count_path="/_teacher/calls",
        unit="calls",
    )


@dataclass(kw_only=True)
class Demo:
    """The folders, the teacher and what has happened so far."""

    console: Console
    folder: Path
    teacher: Teacher
    limit: int
    port: int = field(default_factory=free_port)
    legs: list[Leg] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        """What the proxy keeps."""
        return self.folder / "data"

    @property
    def client_environment(self) -> dict[str, str]:
        """What points the official client at the proxy."""
        return {"OPENAI_BASE_URL": f"http://127.0.0.1:{self.port}/v1", "OPENAI_API_KEY": "not-needed"}

    def start_teacher(self) -> Child:
        """Start the teacher and wait until it answers."""
        child = Child("teacher", self.teacher.command, log=self.folder / "teacher.log")
        return self._ready(child, f"http://127.0.0.1:{self.teacher.port}{self.teacher.ready_path}")

    def start_proxy(self) -> Child:
        """Start `kdproxy serve` on the data directory and wait until it is healthy."""
        command = [sys.executable, "-m", "kdproxy", "serve", "--upstream", f"local={self.teacher.url}"]
        command += ["--data-dir", str(self.data_dir), "--port", str(self.port)]
        child = Child("proxy", command, log=self.folder / "proxy.log")
        return self._ready(child, f"http://127.0.0.1:{self.port}/_kdproxy/healthz")

    def start_script(self, out: Path) -> Child:
        """Start the user's script, pointed at the proxy by its environment alone."""
        command = [sys.executable, str(HERE / "distill_openai.py"), "--model", self.teacher.model]
        command += ["--out", str(out), "--limit", str(self.limit)]
        return Child("script", command, log=out.with_suffix(".log"), env=self.client_environment)

    def run_leg(self, name: str, out: Path, *, kill_after_rows: int | None = None) -> None:
        """Run proxy and script once; with `kill_after_rows`, kill both with SIGKILL when so many rows are there."""
        self.console.print(f"[bold]{name}[/bold]")
        kept, counted = paid_for(self.data_dir), self.teacher.count()
        with self.start_proxy() as proxy:
            started = time.monotonic()
            with self.start_script(out) as script:
                if kill_after_rows is None:
                    script.wait_for_end(seconds=LEG_SECONDS)
                else:
                    script.wait_for_lines(out, kill_after_rows, seconds=LEG_SECONDS)
                    script.kill()
                    proxy.kill()
            seconds = time.monotonic() - started
        self.legs.append(
            Leg(
                name=name,
                rows=out.read_bytes().count(b"\n"),
                bought=paid_for(self.data_dir)[len(kept) :],
                replayed=kept,
                teacher_moved=self.teacher.count() - counted,
                seconds=seconds,
            )
        )

    def _ready(self, child: Child, url: str) -> Child:
        try:
            child.wait_until_answers(url, seconds=READY_SECONDS)
        except BaseException:
            child.stop()
            raise
        return child


def broken_promises(demo: Demo, seen: Path, first: Path, second: Path) -> list[str]:
    """Compare what the runs left behind; an empty list is what the demo is for."""
    repeat = demo.legs[-1]
    rows = seen.read_bytes()
    whole_rows = rows[: rows.rfind(b"\n") + 1]
    checks = {
        "the outputs of both runs are not the same file": first.read_bytes() == second.read_bytes(),
        "a row that the script saw before the kill came back changed": first.read_bytes().startswith(whole_rows),
        "not every question was answered": demo.legs[1].rows == repeat.rows == demo.limit,
        "an answer was bought twice": not repeat.bought and len(paid_for(demo.data_dir)) == demo.limit,
        "the second run reached the teacher": repeat.teacher_moved == 0,
    }
    return [problem for problem, is_kept in checks.items() if not is_kept]


def play(demo: Demo, paid: PaidTeacher) -> int:
    """Run the three legs, print the bill, return the exit status."""
    seen, first, second = (demo.folder / name for name in ("killed.jsonl", "first.jsonl", "second.jsonl"))
    with demo.start_teacher():
        demo.run_leg("run 1, kill -9", seen, kill_after_rows=max(1, demo.limit // 3))
        demo.run_leg("run 1, resumed", first)
        demo.run_leg("run 2", second)
        problems = broken_promises(demo, seen, first, second) + student.broken_promises(demo)
    demo.console.print(bill(demo.legs, paid, demo.teacher.unit))
    demo.console.print(at_scale(demo.legs[-1], paid))
    for problem in problems:
        demo.console.print(f"[red]BROKEN PROMISE: {problem}[/red]")
    if not problems:
        demo.console.print(
            f"The outputs of both runs are byte-identical ({first.stat().st_size:,} bytes); "
            f"all {demo.legs[0].rows} rows seen before the kill are in them."
        )
    return 1 if problems else 0


def main() -> int:
    """Read the arguments, prepare a folder, play."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep data, outputs and logs here (default: a temporary one)")
    parser.add_argument("--limit", type=int, default=24, help="ask only the first N questions")
    parser.add_argument("--price-as", default="openai/gpt-4o", metavar="SELLER/MODEL", help="the paid teacher")
    parser.add_argument("--scripted", action="store_true", help="take the scripted teacher even if a model is there")
    args = parser.parse_args()
    seller, _, model = args.price_as.partition("/")
    console = Console(width=None if sys.stdout.isatty() else 100)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        if args.folder is None:
            folder = Path(tempfile.mkdtemp(prefix="kdproxy-demo-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            folder = args.folder
            folder.mkdir(parents=True, exist_ok=False)
        teacher = choose_teacher(scripted=args.scripted)
        console.print(f"Teacher: {teacher.model} on this machine, {os.cpu_count()} cores")
        if teacher.unit == "calls":
            console.print(
                "No local model is installed: the scripted teacher stands in, and its answers mean nothing.",
                style="yellow",
            )
        demo = Demo(console=console, folder=folder, teacher=teacher, limit=args.limit)
        try:
            return play(demo, PaidTeacher(seller=seller, model=model))
        except ChildError as error:
            console.print(str(error), style="red", markup=False)
            return 1
        except KeyboardInterrupt:
            console.print("Stopped.")
            return 130


if __name__ == "__main__":
    sys.exit(main())
