"""The demo's last part: a student is trained on the teacher's probabilities, killed with SIGKILL, and resumed."""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from child import Child

if TYPE_CHECKING:
    from demo import Demo

SCRIPT = Path(__file__).with_name("distill_kd.py")
PROMPTS = 12
SILENT_SECONDS = 300


def broken_promises(demo: "Demo") -> list[str]:
    """Train the student with and without a kill, print the result, and return the promises that were broken."""
    if importlib.util.find_spec("torch") is None:
        demo.console.print("No torch is installed: after `make setup` the demo trains a student as well.")
        return []
    killed, whole = demo.folder / "student", demo.folder / "student-whole"
    demo.console.print("[bold]a student learns from the teacher, kill -9, resume[/bold]")
    with demo.start_proxy():
        with _start(demo, killed) as script:
            script.wait_until(
                lambda: any((killed / "checkpoints").glob("step-*")),
                silent_seconds=SILENT_SECONDS,
                tell=demo.tell("student"),
            )
            script.kill()
        counted = demo.teacher.count()
        for out in (killed, whole):
            with _start(demo, out) as script:
                script.wait_for_end(silent_seconds=SILENT_SECONDS, tell=demo.tell("student"))
        bought = demo.teacher.count() - counted
    for line in _lines(killed):
        if line.startswith("resumed at step"):
            demo.console.print(line, highlight=False)
    demo.console.print(_lines(killed)[-1], highlight=False)
    problems = []
    if bought:
        problems.append("the resumed student bought answers again")
    weights = [(out / "student.safetensors").read_bytes() for out in (killed, whole)]
    if weights[0] != weights[1]:
        problems.append("the killed student has other weights than one that was not killed")
    if not problems:
        demo.console.print(
            "Resumed at no cost; its weights are byte for byte those of a student that was never killed."
        )
    return problems


def _start(demo: "Demo", out: Path) -> Child:
    command = [sys.executable, str(SCRIPT), "--model", demo.teacher.model, "--out", str(out)]
    command += ["--limit", str(PROMPTS), "--max-tokens", "32", "--steps", "100"]
    # One thread: for a model this small a second one only waits, and the teacher and the proxy need the core.
    environment = {**demo.client_environment, "OMP_NUM_THREADS": "1"}
    return Child("student", command, log=out.with_suffix(".log"), env=environment)


def _lines(out: Path) -> list[str]:
    """What the student said; a progress bar is drawn over itself and then over."""
    return out.with_suffix(".log").read_text(encoding="utf-8").splitlines()
