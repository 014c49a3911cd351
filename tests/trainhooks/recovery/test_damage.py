"""Folders as they are found: damaged, hostile, huge, closed. What can be read is, the rest is said, nothing raises."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from trainhooks import training_progress_context
from trainhooks.errors import TrainhooksError
from trainhooks.recovery import place, recover
from trainhooks.recovery.place import Kind

Train = Callable[..., nn.Linear]


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def result(path: Path) -> str:
    """Return the kind of run that is found, or what is said in its place."""
    try:
        return recover(path).kind
    except TrainhooksError as error:
        return error.message


@pytest.mark.parametrize("form", ["torch", "bare pickle"])
def test_a_malicious_checkpoint_is_refused_and_reported(tmp_path: Path, form: str) -> None:
    folder, proof = tmp_path / "run", tmp_path / "it-ran"
    folder.mkdir()
    if form == "torch":
        torch.save({"model": nn.Linear(2, 1).state_dict(), "extra": Bomb(proof)}, folder / "epoch_2.pt")
    else:
        (folder / "epoch_2.pt").write_bytes(pickle.dumps({"extra": Bomb(proof)}, protocol=2))
    with pytest.raises(TrainhooksError, match=r"epoch_2\.pt holds more than tensors") as refused:
        recover(folder)
    assert "would execute what is in it" in str(refused.value)
    torch.save({"epoch": 1, "model": nn.Linear(2, 1).state_dict(), "val_loss": 0.5}, folder / "epoch_1.pt")
    run = recover(folder)
    assert [saved.path.name for saved in run.checkpoints] == ["epoch_1.pt"]
    assert any("epoch_2.pt holds more than tensors" in gap for gap in run.gaps)
    run.load_model(nn.Linear(2, 1))
    assert not proof.exists()
    pickle.loads(pickle.dumps(Bomb(proof)))
    assert proof.exists(), "the bomb is a dud: this test would prove nothing"


def test_a_damaged_torch_file_is_left_out(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        torch.save({"epoch": epoch, "model": nn.Linear(2, 1).state_dict(), "loss": 1 / epoch}, tmp_path / f"{epoch}.pt")
    (tmp_path / "3.pt").write_bytes((tmp_path / "3.pt").read_bytes()[:300])
    (tmp_path / "4.pt").write_bytes(b"")
    (tmp_path / "5.pt").mkdir()
    run = recover(tmp_path)
    assert [saved.path.name for saved in run.checkpoints] == ["1.pt", "2.pt"]
    assert [gap.split(" is ")[0] for gap in run.gaps if "damaged or no torch file" in gap] == ["3.pt", "4.pt", "5.pt"]


def test_steps_that_are_tensors_are_numbers(tmp_path: Path) -> None:
    torch.save({"epoch": torch.tensor(3), "step": torch.tensor([40]), "model": {}}, tmp_path / "a.pt")
    torch.save({"epoch": "three", "step": None, "model": {}}, tmp_path / "step_30.pt")
    assert [(saved.epoch, saved.step) for saved in recover(tmp_path).checkpoints] == [(None, 30), (3, 40)]


def test_hugging_face_continues_with_an_older_state(hugging_face: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(hugging_face, folder)
    newest = folder / "checkpoint-12" / "trainer_state.json"
    newest.write_bytes(newest.read_bytes()[:-40])
    run = recover(folder)
    assert run.kind is Kind.HUGGING_FACE
    assert run.metrics_df["step"].tolist() == [2, 4, 6, 8]
    assert any("checkpoint-12/trainer_state.json cannot be read" in gap for gap in run.gaps)


@pytest.mark.parametrize(
    "state",
    [
        "[]",
        "null",
        "{}",
        "{",
        "\x00",
        '{"log_history": 7}',
        '{"log_history": [1, "x"]}',
        '{"log_history": [{"loss": 1}], "best_model_checkpoint": 7}',
    ],
)
def test_a_trainer_state_of_another_shape_never_raises_another_error(tmp_path: Path, state: str) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "trainer_state.json").write_text(state)
    said = result(tmp_path)
    assert said is Kind.HUGGING_FACE or "cannot be read" in said


def test_rows_that_lightning_wrote_by_half_are_left_out(lightning: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(next(lightning.glob("**/metrics.csv")).parent, folder)
    whole = recover(folder)
    assert whole.kind is Kind.LIGHTNING, "its folder of checkpoints is newer, and no run of its own"
    table = folder / "metrics.csv"
    table.write_text(table.read_text() + "0.5,too,many,fields,here,1,2,3,4,5\n")
    assert len(recover(folder).metrics_df) == len(whole.metrics_df)
    for damage in (b"", b"\xff\xfe\x00\x80" * 50):
        table.write_bytes(damage)
        run = recover(folder)
        assert (run.kind, run.root) == (Kind.TORCH, folder / "checkpoints"), "what is left"
        assert any("metrics.csv cannot be read" in each.reason for each in run.passed_over)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(TrainhooksError, match=r"metrics\.csv cannot be read"):
        recover(folder)


@pytest.mark.parametrize("name", ["session.json", "metrics.jsonl", "progress.json", "checkpoints.json"])
def test_no_damage_of_our_own_files_raises_another_error(tmp_path: Path, ours: Train, name: str) -> None:
    ours(tmp_path / "run")
    file = tmp_path / "run" / "progress" / name
    whole = file.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], b"\x00" * 300, b"[]", b'{"v": 1}\n'):
        file.write_bytes(damage)
        said = result(tmp_path / "run")
        assert said is Kind.TRAINHOOKS or (name == "session.json" and "is damaged" in said), said


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainhooksError) as nothing:
        recover(tmp_path)
    assert str(nothing.value).splitlines() == [str(nothing.value)]
    assert "it holds no run" in str(nothing.value)
    (tmp_path / "notes.txt").touch()
    for path, why in (("nowhere", "it does not exist"), ("notes.txt", "it is a file"), ("x" * 300, "name too long")):
        with pytest.raises(TrainhooksError, match=why):
            recover(tmp_path / path)
    with pytest.raises(TrainhooksError, match="a path without a NUL character"):
        recover("a\0b")


def test_symlink_loops_end(tmp_path: Path, ours: Train) -> None:
    ours(tmp_path / "runs" / "a")
    for folder in (tmp_path / "runs", tmp_path / "runs" / "a"):
        (folder / "loop").symlink_to(tmp_path / "runs", target_is_directory=True)
        (folder / "self").symlink_to(folder / "self")
        (folder / "last.pt").symlink_to(folder / "gone.pt")
        (folder / "round.pt").symlink_to(folder / "round.pt")
    run = recover(tmp_path / "runs")
    assert run.root.resolve() == tmp_path / "runs" / "a"
    with pytest.raises(TrainhooksError, match="symbolic links"):
        recover(tmp_path / "runs" / "self")


def test_links_that_lead_nowhere_are_no_checkpoints(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "model": {}}, tmp_path / "epoch_1.pt")
    (tmp_path / "best.pt").symlink_to(tmp_path / "epoch_1.pt")
    (tmp_path / "last.pt").symlink_to(tmp_path / "gone.pt")
    (tmp_path / "round.pt").symlink_to(tmp_path / "round.pt")
    assert sorted(saved.path.name for saved in recover(tmp_path).checkpoints) == ["best.pt", "epoch_1.pt"]


def test_thousands_of_folders(tmp_path: Path, ours: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    ours(tmp_path / "run")
    old = time.time() - 1e6
    for file in [tmp_path / "run", *(tmp_path / "run").rglob("*")]:
        os.utime(file, (old, old))
    for number in range(3000):
        (tmp_path / f"folder-{number}").mkdir()
    assert recover(tmp_path).root == tmp_path / "run", "the one that changed longest ago"
    monkeypatch.setattr(place, "SEARCH_SECONDS", 0.0)
    with pytest.raises(TrainhooksError, match=r"3,001 of its 3,001 folders were not searched"):
        recover(tmp_path)
    assert recover(tmp_path / "run").root == tmp_path / "run", "a run that is named is found at once"


READ = """
import sys
from trainhooks.recovery import recover
run = recover(sys.argv[1])
print(run.root, [(str(each.path), each.reason) for each in run.passed_over])
"""


def test_what_may_not_be_read_is_passed_over(tmp_path: Path, ours: Train) -> None:
    ours(tmp_path / "runs" / "open")
    for name in ("closed", "half"):
        shutil.copytree(tmp_path / "runs" / "open", tmp_path / "runs" / name)
    (tmp_path / "runs" / "closed").chmod(0)
    session = tmp_path / "runs" / "half" / "progress" / "session.json"
    session.chmod(0)
    os.utime(session, (time.time() + 60, time.time() + 60))  # the newest run is looked at first
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    try:
        folders = (tmp_path / "runs", tmp_path / "runs" / "closed")
        found, closed = (
            subprocess.run([*drop, sys.executable, "-c", READ, folder], check=False, capture_output=True, text=True)
            for folder in folders
        )
    finally:
        (tmp_path / "runs" / "closed").chmod(0o755)
    assert found.stdout.startswith(f"{tmp_path}/runs/open "), found.stderr
    assert f"('{tmp_path}/runs/closed', 'permission denied')" in found.stdout
    assert f"('{tmp_path}/runs/half', 'permission denied')" in found.stdout
    assert "permission denied" in closed.stderr.splitlines()[-1]


def test_metrics_of_any_writer_become_columns(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "a.pt")
    rows = [{"iteration": 1, "training_loss": 0.5, "note": "x"}, {"iteration": 2, "training_loss": "bad"}, 7, None]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + '\n{"iteration": 3, "tr')
    metrics = recover(tmp_path).metrics_df
    assert metrics["step"].tolist() == [1, 2]
    assert metrics["train/loss"].isna().tolist() == [False, True]


@pytest.mark.parametrize("lost", ["progress/session.json", "progress"])
def test_a_run_without_its_session_goes_as_far_as_the_rest(tmp_path: Path, ours: Train, lost: str) -> None:
    ours(tmp_path / "run")
    if lost == "progress":
        shutil.rmtree(tmp_path / "run" / lost)
    else:
        (tmp_path / "run" / lost).unlink()
    run = recover(tmp_path / "run")
    assert run.kind == Kind.TRAINHOOKS
    assert len(run.metrics_df) == (0 if lost == "progress" else 60)
    assert [saved.step for saved in run.checkpoints] == [20, 40, 60]
    assert run.gaps[0] == "session.json is missing: the run's configuration and attempts are unknown."
    run.load_model(nn.Linear(4, 1))


def test_a_damaged_session_is_reported_and_the_rest_is_given(tmp_path: Path, ours: Train) -> None:
    ours(tmp_path)
    (tmp_path / "progress" / "session.json").write_bytes(b'{"v": 1, "att')
    run = recover(tmp_path)
    assert (len(run.metrics_df), len(run.checkpoints), run.status) == (60, 3, None)
    assert "session.json" in run.gaps[0]
    assert "configuration and attempts are unknown" in run.gaps[0]


def test_rows_that_are_lost_are_reported(tmp_path: Path, ours: Train) -> None:
    ours(tmp_path)
    path = tmp_path / "progress" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], *lines[8:20], b"\xff\x00\n", *lines[21:30]]))
    gaps = " ".join(recover(tmp_path).gaps)
    assert "4 of the lines of metrics.jsonl are damaged or missing." in gaps
    assert "but a checkpoint has 60 steps: rows are lost." in gaps


def test_checkpoints_in_quarantine_are_reported(tmp_path: Path, ours: Train) -> None:
    ours(tmp_path)
    (tmp_path / "checkpoints" / "step-000000060" / "model.safetensors").write_bytes(b"")
    ours(tmp_path)  # it goes on from the one before
    assert any("1 damaged checkpoints are in" in gap and "quarantine" in gap for gap in recover(tmp_path).gaps)


def test_text_that_was_cut_within_a_character_is_read(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, 2) as progress:
        progress.update_metrics(0, loss=1.0, said="cut \ud83d")
    (said,) = recover(tmp_path).metrics_df["said"]
    assert said == "cut ?"


def test_epochs_of_fractions_are_not_counted_by_rows(tmp_path: Path) -> None:
    for folder, epochs in (("whole", [0, 0, 1, 1]), ("parts", [0.5, 1.0, 1.5, 2.25])):
        with training_progress_context({}, tmp_path / folder, 4) as progress:
            for step, epoch in enumerate(epochs):
                progress.update_metrics(step, loss=1.0, epoch=epoch)
    assert recover(tmp_path / "whole").results["epochs"] == 2
    assert recover(tmp_path / "parts").results["epochs"] == 2.25


def test_only_best_and_last_can_be_chosen(tmp_path: Path, ours: Train) -> None:
    model = ours(tmp_path)
    with pytest.raises(TrainhooksError, match="Unknown checkpoint 'middle'"):
        recover(tmp_path).load_model(model, which="middle")


@pytest.mark.parametrize("inside", ["progress", "checkpoints"])
def test_from_within_a_run_it_is_found(
    tmp_path: Path, ours: Train, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run" / inside)
    assert recover().root.resolve() == tmp_path / "run"
    assert recover(".").root.resolve() == tmp_path / "run"
