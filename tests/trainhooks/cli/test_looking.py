"""recover, plot, export and sessions as processes without torch: exit codes, JSON, one clear line for bad input."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from trainhooks import training_progress_context

# The command where torch is not installed.
COMMAND = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoTorch())
from trainhooks.cli.main import main
main()
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def trainhooks(*arguments: object, cwd: Path, columns: int = 250) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": str(columns)},
    )


def good(*arguments: object, cwd: Path) -> str:
    done = trainhooks(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def bad(*arguments: object, cwd: Path, code: int = 1) -> str:
    """Return the one line that is said, which names a way out."""
    done = trainhooks(*arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (code, ""), done.stdout + done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("trainhooks: ")
    assert " Hint: " in line
    return line


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs in runs/."""
    folder = tmp_path_factory.mktemp("work")
    for name, lr in (("a", 0.1), ("b", 0.2)):
        config = {"run_name": name, "lr": lr, "layers": 2, "tags": ["demo"]}
        with training_progress_context(config, folder / "runs" / name, 10) as progress:
            for step in range(10):
                val_loss = lr + 1 / (step + 1) if step % 3 == 0 else None
                progress.update_metrics(step, loss=1 / (step + 1), learning_rate=lr, val_loss=val_loss)
            (folder / "runs" / name / "mine.pt").write_bytes(b"weights")
            progress.record_checkpoint(folder / "runs" / name / "mine.pt", tags=["good"])
    return folder


def test_recover(work: Path) -> None:
    text = good("recover", "runs/a", cwd=work)
    assert text.startswith("a (trainhooks, 10 rows, 1 checkpoints) from runs/a\n")
    assert "missing: No input statistics" in text
    found = json.loads(good("recover", "runs/a", "--json", cwd=work))
    assert (found["run_name"], found["kind"], found["rows"], found["status"]) == ("a", "trainhooks", 10, "closed")
    assert found["best_checkpoint"] == "runs/a/mine.pt"
    newest = json.loads(good("recover", "--json", cwd=work))
    assert newest["run_name"] == "b", "the newest of the usual places"


def test_recover_into_a_database(work: Path, tmp_path: Path) -> None:
    database = tmp_path / "mine.db"
    found = json.loads(good("recover", "runs/a", "--database", database, "--json", cwd=work))
    runs = json.loads(good("sessions", "list", "--database", database, "--json", cwd=work))
    assert [run["run_id"] for run in runs] == [found["run_id"], found["run_id"].removesuffix("_recovered")]
    assert [run["state"] for run in runs] == [None, "closed"]


def test_recover_without_torch_lists_torch_checkpoints(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "val_loss": 0.5}, tmp_path / "epoch_1.pt")
    text = good("recover", tmp_path, cwd=tmp_path)
    assert "last_checkpoint: " + str(tmp_path / "epoch_1.pt") in text
    assert "torch is not installed" in text


@pytest.mark.parametrize("verb", ["recover", "plot", "export"])
def test_no_run_is_one_line(tmp_path: Path, verb: str) -> None:
    assert "nowhere: it does not exist" in bad(verb, "nowhere", cwd=tmp_path)
    (tmp_path / "file").touch()
    assert "it is a file" in bad(verb, "file", cwd=tmp_path)
    (tmp_path / "empty").mkdir()
    assert "it holds no run" in bad(verb, "empty", cwd=tmp_path)
    (tmp_path / "half" / "progress").mkdir(parents=True)
    (tmp_path / "half" / "progress" / "session.json").write_text("{")
    assert "session.json is damaged" in bad(verb, "half", cwd=tmp_path)


def test_plot(work: Path, tmp_path: Path) -> None:
    found = json.loads(good("plot", "runs/a", "--out", tmp_path, "--json", cwd=work))
    assert found["status"] == "closed"
    png, html = map(Path, found["files"])
    assert png.read_bytes().startswith(b"\x89PNG")
    assert html.read_text().lower().startswith("<!doctype html>")
    assert good("plot", "runs/a", "--out", tmp_path, cwd=work).splitlines() == [str(png), str(html)]
    (tmp_path / "file").touch()
    assert trainhooks("plot", "runs/a", "--out", tmp_path / "file", cwd=work).returncode == 2
    assert "cannot be written" in bad("plot", "runs/a", "--out", tmp_path / "file" / "below", cwd=work)


def test_export(work: Path, tmp_path: Path) -> None:
    path = good("export", "runs/a", cwd=work).strip()
    assert path == "runs/a/results/a_metrics.csv"
    assert len(pd.read_csv(work / path)) == 10
    path = good("export", "runs/a", "--format", "parquet", "--out", tmp_path / "deep" / "er", cwd=work).strip()
    assert pd.read_parquet(path)["train/loss"].tolist() == [1 / (step + 1) for step in range(10)]
    done = trainhooks("export", "runs/a", "--format", "xlsx", cwd=work)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    (tmp_path / "file").touch()
    assert "cannot be written" in bad("export", "runs/a", "--out", tmp_path / "file" / "below", cwd=work)


def test_export_of_a_run_without_metrics_is_one_line(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "last.pt")
    assert "no metrics" in bad("export", tmp_path, cwd=tmp_path)
    assert not (tmp_path / "results").exists()


def test_sessions_list(work: Path) -> None:
    runs: list[dict[str, Any]] = json.loads(good("sessions", "list", "--json", cwd=work))
    assert [(run["name"], run["state"], len(run["sessions"])) for run in runs] == [
        ("b", "closed", 1),
        ("a", "closed", 1),
    ]
    header, *rows = good("sessions", "list", cwd=work).splitlines()
    assert "best val/loss" in header
    assert [row.split()[1:3] for row in rows[::2]] == [["b", "closed"], ["a", "closed"]]
    assert [row.strip() for row in rows[1::2]] == ["runs/b", "runs/a"]
    assert good("sessions", "list", "--database", "runs", cwd=work) == "\n".join([header, *rows]) + "\n"


def test_sessions_show(work: Path) -> None:
    run = json.loads(good("sessions", "show", "a", "--json", cwd=work))
    assert (run["config"]["lr"], run["tags"], run["total_steps"]) == (0.1, ["demo", "good"], 10)
    assert [checkpoint["step"] for checkpoint in run["checkpoints"]] == [10]
    text = good("sessions", "show", run["run_id"][:6], cwd=work)
    for part in ("lr = 0.1", "tags: demo, good", "closed", "val/loss", "mine.pt"):
        assert part in text, text


def test_a_listing_fits_80_columns_and_each_of_its_ids_is_taken(tmp_path: Path) -> None:
    """A name that is too long for its column, a failure, a recovery: nothing is cut, nothing is broken in two."""
    name = "distill-llama-8b-" + "with-a-name-that-somebody-made-of-all-its-settings" * 2
    for out, config in (("a", {}), (name, {}), ("failed", {"run_name": "failed"})):
        with contextlib.suppress(ArithmeticError), training_progress_context(config, tmp_path / "runs" / out, 1) as run:
            run.update_metrics(0, loss=0.5, val_loss=0.25)
            if out == "failed":
                raise ArithmeticError("all is lost")
    good("recover", "runs/a", "--database", "runs/experiments.db", cwd=tmp_path)
    runs = json.loads(good("sessions", "list", "--json", cwd=tmp_path))
    shown = trainhooks("sessions", "list", cwd=tmp_path, columns=80).stdout
    assert "\u2026" not in shown
    assert [line for line in shown.splitlines() if len(line) > 80 and name not in line] == []
    for run_ in runs:
        assert run_["name"] in shown
        assert str(Path(run_["directory"]).relative_to(tmp_path)) in shown
        ids = [line.split()[0] for line in shown.splitlines() if run_["run_id"].startswith(line.split()[0])]
        found = [json.loads(good("sessions", "show", each, "--json", cwd=tmp_path))["run_id"] for each in ids]
        assert run_["run_id"] in found
    assert "failed: ArithmeticError" in shown


def test_another_database_than_the_first_is_named(work: Path, tmp_path: Path) -> None:
    """`show NAME` that finds nothing says where it looked, and where else there is one."""
    for folder in ("runs", "outputs"):
        with training_progress_context({"run_name": folder}, tmp_path / folder / "x", 1) as run:
            run.update_metrics(0, loss=0.5)
    done = trainhooks("sessions", "show", "outputs", cwd=tmp_path)
    assert done.returncode == 1
    assert "database: runs/experiments.db (others here: outputs/experiments.db; --database chooses)" in done.stderr
    assert "No run is called outputs" in done.stderr
    assert good("sessions", "show", "outputs", "--database", "outputs", cwd=tmp_path).split()[1] == "outputs"


def test_sessions_compare(work: Path) -> None:
    found = json.loads(good("sessions", "compare", "a", "b", "--json", cwd=work))
    assert found["settings"] == {"lr": [0.1, 0.2], "run_name": ["a", "b"]}
    assert found["best"]["val/loss"] == [pytest.approx(0.2), pytest.approx(0.3)]
    lines = good("sessions", "compare", "a", "b", cwd=work).splitlines()
    assert ["best", "val/loss", "0.2", "0.3"] in [line.split() for line in lines]


def test_sessions_with_bad_input(work: Path, tmp_path: Path) -> None:
    assert "There is no experiment database at experiments.db" in bad("sessions", "list", cwd=tmp_path)
    assert not list(tmp_path.iterdir()), "none is made by looking"
    assert "No run is called nobody" in bad("sessions", "show", "nobody", cwd=work)
    assert "No run is called nobody" in bad("sessions", "compare", "a", "nobody", cwd=work)
    (tmp_path / "notes.txt").write_text("my notes " * 100)
    assert "cannot be used" in bad("sessions", "list", "--database", tmp_path / "notes.txt", cwd=work)
    assert trainhooks("sessions", "compare", cwd=work).returncode == 2
    assert trainhooks("sessions", "nonsense", cwd=work).returncode == 2
