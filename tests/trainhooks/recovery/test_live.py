"""Looking at a run while another process trains it: drawn anew, whole at each moment, and over when the run is."""

import itertools
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

# Trains as many steps as each line of its input says; ends in order when the input does.
TRAINING = """
import sys
from trainhooks import training_progress_context
with training_progress_context({"run_name": "live"}, sys.argv[1], 1000) as progress:
    print("begun", flush=True)
    step = 0
    for line in sys.stdin:
        for step in range(step, step + int(line)):
            progress.update_metrics(step, loss=1 / (step + 1))
        step += 1
        progress.flush()
        print("recorded", flush=True)
"""
MOST_LOOKS = 100
PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


class Training:
    def __init__(self, out: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", TRAINING, str(out)], **PIPES)
        self._hears("begun")

    def steps(self, count: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        self._hears("recorded")

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait() == 0

    def _hears(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{word}\n"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended with the test, however it ends."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def plot(started: list["subprocess.Popen[str]"]) -> Any:
    def start(directory: Path) -> "subprocess.Popen[str]":
        code = "from trainhooks.cli.main import main; main()"
        arguments = ["plot", str(directory), "--every", "0.2", "--json"]
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    return start


def rows_on(page: Path) -> int:
    """How many steps the page says were recorded, in its last table."""
    found = re.findall(r">step</th><td[^>]*>([\d,]+)</td>", page.read_text())
    return int(found[-1].replace(",", "")) if found else 0


def drawn_until(process: "subprocess.Popen[str]", rows: int) -> dict[str, Any]:
    assert process.stdout is not None
    for line in itertools.islice(process.stdout, MOST_LOOKS):
        drawn: dict[str, Any] = json.loads(line)
        if rows_on(Path(drawn["files"][1])) == rows:
            return drawn
    raise AssertionError(f"{rows} rows were not drawn")


class Reader(threading.Thread):
    """Reads the files without a pause, as a browser and a viewer might, and keeps what was not whole."""

    def __init__(self, files: list[Path]) -> None:
        super().__init__(daemon=True)
        self._files = files
        self._over = threading.Event()
        self.read = 0
        self.torn: list[str] = []

    def run(self) -> None:
        while not self._over.is_set():
            for file in self._files:
                content = file.read_bytes()
                self.read += 1
                if not content.endswith((b"IEND\xaeB`\x82", b"</html>\n")):
                    self.torn.append(f"{file.name}: {len(content)} bytes")

    def stop(self) -> None:
        self._over.set()
        self.join()


def test_a_run_is_waited_for_drawn_while_it_trains_and_over_with_it(
    tmp_path: Path, plot: Any, started: list["subprocess.Popen[str]"]
) -> None:
    out = tmp_path / "later"
    looking = plot(out)
    assert looking.stderr.readline() == f"No run in {out} yet. Waiting for it to start.\n"
    training = Training(out)
    started.append(training.process)
    training.steps(30)
    drawn = drawn_until(looking, 30)
    assert drawn["status"] == "running"
    files = [Path(file) for file in drawn["files"]]
    assert [file.name for file in files] == ["live_dashboard.png", "live_dashboard.html"]
    assert 'http-equiv="refresh"' in files[1].read_text()
    reader = Reader(files)
    reader.start()
    for count in (60, 90, 120):
        training.steps(30)
        drawn_until(looking, count)
    reader.stop()
    assert reader.read > 10
    assert reader.torn == []
    training.end()
    rest, said = looking.communicate()
    assert looking.returncode == 0
    assert json.loads(rest.splitlines()[-1])["status"] == "closed"
    assert said.splitlines()[-1] == "live has ended (closed) after 120 of 1,000 steps."
    assert 'http-equiv="refresh"' not in files[1].read_text()
    assert rows_on(files[1]) == 120
    assert sorted(file.name for file in files[0].parent.iterdir()) == sorted(file.name for file in files)


def test_ctrl_c_ends_the_looking_alone(tmp_path: Path, plot: Any, started: list["subprocess.Popen[str]"]) -> None:
    training = Training(tmp_path)
    started.append(training.process)
    training.steps(5)
    looking = plot(tmp_path)
    files = drawn_until(looking, 5)["files"]
    looking.send_signal(signal.SIGINT)
    _, said = looking.communicate()
    assert looking.returncode == 130
    assert said.splitlines()[-1] == "Stopped watching. The run itself continues."
    assert "Traceback" not in said
    assert [file.name for file in Path(files[0]).parent.iterdir() if file.name.startswith(".")] == []
    training.steps(5)
    training.end()


def test_a_run_that_is_killed_is_over(tmp_path: Path, plot: Any, started: list["subprocess.Popen[str]"]) -> None:
    training = Training(tmp_path)
    started.append(training.process)
    training.steps(5)
    looking = plot(tmp_path)
    drawn_until(looking, 5)
    training.process.kill()
    _, said = looking.communicate()
    assert looking.returncode == 0
    assert said.splitlines()[-1] == "live has ended (cut off) after 5 of 1,000 steps."


def watched(folder: Path, cell: str) -> list[Any]:
    """What a cell that watches `folder` puts out, in a new kernel."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return list(notebook.cells[0].outputs)


def test_a_notebook_watches_a_run_to_its_end(tmp_path: Path, started: list["subprocess.Popen[str]"]) -> None:
    training = Training(tmp_path)
    started.append(training.process)
    training.steps(20)
    picture = tmp_path / "results" / "live_dashboard.png"

    def go_on_once_it_is_drawn() -> None:
        while not picture.exists():
            threading.Event().wait(0.05)
        training.steps(20)
        training.end()

    other = threading.Thread(target=go_on_once_it_is_drawn)
    other.start()
    outputs = watched(tmp_path, "from trainhooks import notebook\nnotebook.watch('.', every_seconds=0.2)")
    other.join()
    assert "image/png" in outputs[0].data
    assert outputs[1].data["text/plain"] == "live has ended (closed) after 40 of 1,000 steps."
    assert len(outputs) == 2  # each look takes the place of the one before


def test_interrupting_the_cell_ends_it_in_a_sentence(tmp_path: Path, started: list["subprocess.Popen[str]"]) -> None:
    training = Training(tmp_path)
    started.append(training.process)
    training.steps(20)
    outputs = watched(
        tmp_path,
        "import os, pathlib, signal, threading\n"
        "from trainhooks import notebook\n"
        "def interrupt():\n"
        "    while not pathlib.Path('results/live_dashboard.html').exists():\n"
        "        threading.Event().wait(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt).start()\n"
        "notebook.watch('.', every_seconds=0.2)",
    )
    assert not [output for output in outputs if output.output_type == "error"]
    assert outputs[-1].data["text/plain"] == "Stopped watching. The run itself continues."
    training.end()


def test_a_watched_run_that_never_begins_is_one_sentence(tmp_path: Path) -> None:
    outputs = watched(
        tmp_path, "from trainhooks import notebook\nnotebook.watch('nowhere', seconds=0, every_seconds=0.2)"
    )
    assert [output.data["text/plain"] for output in outputs] == [
        "No run in nowhere yet. Waiting for it to start. Watched for 0 s. Run the cell again to continue."
    ]
