"""`make demo`: distil from a real model on this machine, kill everything halfway, resume, run again, print the bill.

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
from urllib.request import Request, urlopen

import local_teacher
import student
from bill import Leg, PaidTeacher, at_scale, bill, paid_for
from child import Child, ChildError, ChildSilent, Tell, free_port, lines_in
from rich.console import Console

HERE = Path(__file__).parent
READY_SECONDS = 60
FIRST_ANSWER_SECONDS = 60.0
"""If a local model takes longer for its first answer, the demo does not use it."""
BUDGET_SECONDS = 600.0
"""How long the demo may take; the first answer gives an estimate."""
SILENT_SECONDS = 300.0
"""A script that writes nothing for this long counts as stopped."""
TEACHER_SECONDS = 3600
"""The local teacher ends by itself after this."""
TELL_SECONDS = 5.0
ANSWER_TOKENS = 64
BUYS = 1.5
"""How often the questions are bought in all: the runs' once, the student's are half as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """The teacher, and how to read its own counters."""

    command: list[str]
    model: str
    port: int
    ready_path: str
    count_path: str
    unit: str

    is_local_model: bool = True
    """Whether it may be too slow for this machine."""

    @property
    def url(self) -> str:
        """The base URL, as an SDK expects it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def count(self) -> int:
        """Read from the teacher how much it has answered so far."""
        with urlopen(f"http://127.0.0.1:{self.port}{self.count_path}", timeout=10) as reply:
            text = reply.read().decode()
        if self.unit == "calls":
            # Only answers count: a GET of the models, such as the proxy's start check, costs nothing.
            return sum(count for path, count in json.loads(text)["by_path"].items() if path.endswith("/completions"))
        counts = dict(line.split() for line in text.splitlines() if line and not line.startswith("#"))
        return int(float(counts["llamacpp:tokens_predicted_total"]))


def local_model() -> Teacher | None:
    """Return the model on this machine, if it is installed."""
    if not local_teacher.is_installed():
        return None
    port = free_port()
    command = [sys.executable, str(HERE / "local_teacher.py"), "--port", str(port)]
    return Teacher(
        command=[*command, "--max-seconds", str(TEACHER_SECONDS)],
        model=local_teacher.MODEL,
        port=port,
        ready_path="/health",
        count_path="/metrics",
        unit="tokens written",
    )


def scripted_teacher() -> Teacher:
    """Return the scripted teacher, which runs everywhere and whose answers mean nothing."""
    port = free_port()
    command = [sys.executable, "-m", "kdproxy.testing.teacher", "--port", str(port)]
    return Teacher(
        command=[*command, "--latency-ms", "150", "--event-ms", "5", "--words", "40"],
        model="scripted-teacher",
        port=port,
        ready_path="/_teacher/calls",
        count_path="/_teacher/calls",
        unit="calls",
        is_local_model=False,
    )


class TooSlow(Exception):
    """The local model would take too long for a demo."""


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
        """The environment that points the official client at the proxy."""
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
        """Start the user's script, pointed at the proxy only by its environment."""
        command = [sys.executable, str(HERE / "distill_openai.py"), "--model", self.teacher.model]
        command += ["--out", str(out), "--limit", str(self.limit)]
        return Child("script", command, log=out.with_suffix(".log"), env=self.client_environment)

    def run_leg(self, name: str, out: Path, *, kill_after_rows: int | None = None) -> None:
        """Run proxy and script once; with `kill_after_rows`, kill both with SIGKILL at this many rows."""
        self.console.print(f"[bold]{name}[/bold]")
        kept, counted = paid_for(self.data_dir), self.teacher.count()
        with self.start_proxy() as proxy:
            started = time.monotonic()
            with self.start_script(out) as script:
                tell = self.tell(f"of {self.limit} rows", out)
                if kill_after_rows is None:
                    script.wait_for_end(silent_seconds=SILENT_SECONDS, tell=tell)
                else:
                    script.wait_for_lines(out, kill_after_rows, silent_seconds=SILENT_SECONDS, tell=tell)
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

    def tell(self, what: str, out: Path | None = None) -> Tell:
        """Return a callback that prints the progress of a wait every few seconds: rows of a file, or only seconds."""
        told = 0.0

        def tell(seconds: float) -> None:
            nonlocal told
            if seconds >= told + TELL_SECONDS:
                told = seconds
                rows = "" if out is None else f"{lines_in(out)} "
                self.console.print(f"  {rows}{what}, {seconds:.0f} s", style="dim")

        return tell

    def measure(self) -> None:
        """Ask the teacher one question directly and print how long the demo takes at that pace. Raises TooSlow."""
        question = {
            "model": self.teacher.model,
            "messages": [{"role": "user", "content": "Why is the sky blue?"}],
            "max_tokens": ANSWER_TOKENS,
        }
        request = Request(
            f"{self.teacher.url}/chat/completions",
            json.dumps(question).encode(),
            {"Content-Type": "application/json", "Authorization": "Bearer not-needed"},
        )
        started = time.monotonic()
        try:
            with urlopen(request, timeout=FIRST_ANSWER_SECONDS) as reply:
                reply.read()
        except TimeoutError as error:
            raise TooSlow(f"no answer of {self.teacher.model} within {FIRST_ANSWER_SECONDS:.0f} s") from error
        seconds = time.monotonic() - started
        whole = seconds * self.limit * BUYS
        if whole > BUDGET_SECONDS:
            raise TooSlow(
                f"an answer of {self.teacher.model} takes {seconds:.0f} s here, and the demo {whole / 60:.0f} minutes"
            )
        if seconds > 1:
            self.console.print(f"An answer takes {seconds:.0f} s here, the demo about {max(1, whole / 60):.0f} min.")

    def _ready(self, child: Child, url: str) -> Child:
        try:
            child.wait_until_answers(url, seconds=READY_SECONDS)
        except BaseException:
            child.stop()
            raise
        return child


def broken_promises(demo: Demo, seen: Path, first: Path, second: Path) -> list[str]:
    """Compare the results of the runs and return the problems; the demo passes if the list is empty."""
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
        if demo.teacher.is_local_model:
            demo.measure()
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
    """Read the arguments, prepare a folder, run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep data, outputs and logs here (default: a temporary one)")
    parser.add_argument("--limit", type=int, default=24, help="ask only the first N questions")
    parser.add_argument("--price-as", default="openai/gpt-4o", metavar="SELLER/MODEL", help="the paid teacher")
    parser.add_argument("--scripted", action="store_true", help="use the scripted teacher even if a model is installed")
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
        paid = PaidTeacher(seller=seller, model=model)
        try:
            return run(console, folder, paid, limit=args.limit, scripted=args.scripted)
        except ChildError as error:
            console.print(str(error), style="red", markup=False)
            return 1
        except KeyboardInterrupt:
            console.print(
                "Stopped. No process of the demo is left running." + ("" if args.folder is None else f" See {folder}.")
            )
            return 130


def run(console: Console, folder: Path, paid: PaidTeacher, *, limit: int, scripted: bool) -> int:
    """Run with the local model if it is installed and fast enough, else with the scripted teacher."""
    teacher = None if scripted else local_model()
    why = "No local model is installed"
    if teacher is not None:
        console.print(f"Teacher: {teacher.model} on this machine, {os.cpu_count()} cores")
        try:
            return play(Demo(console=console, folder=_made(folder / "model"), teacher=teacher, limit=limit), paid)
        except (TooSlow, ChildSilent) as slow:
            why = f"This machine is too slow for the local model ({str(slow).partition('. The end')[0]})"
    teacher = scripted_teacher()
    console.print(f"{why}: the scripted teacher stands in, and its answers mean nothing.", style="yellow")
    return play(Demo(console=console, folder=_made(folder / "scripted"), teacher=teacher, limit=limit), paid)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
