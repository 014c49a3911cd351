"""Receipts: what was whole is known, what is damaged or half written passed over, nothing of the trainer's touched."""

import logging
import os
from pathlib import Path

import pytest

from trainhooks.errors import CheckpointInvalid
from trainhooks.storage import receipts
from trainhooks.storage.receipts import Receipts, issue, issued, newest_good_checkpoint, verify


def checkpoint(root: Path, step: int) -> Path:
    """Write what a trainer would."""
    path = root / f"checkpoint-{step}"
    (path / "parts").mkdir(parents=True)
    (path / "model.bin").write_bytes(bytes([step]) * 1000)
    (path / "parts" / "optimizer.bin").write_bytes(b"state" * step)
    return path


def tree(path: Path) -> dict[str, tuple[bytes, int]]:
    """Return the files below a directory with bytes and time stamp."""
    files = (each for each in path.rglob("*") if each.is_file())
    return {str(each.relative_to(path)): (each.read_bytes(), each.stat().st_mtime_ns) for each in files}


def test_the_newest_whole_checkpoint_is_found_and_nothing_of_it_is_touched(tmp_path: Path) -> None:
    paths = [checkpoint(tmp_path, step) for step in (9, 10)]
    before = [tree(path) for path in paths]
    for path, step in zip(paths, (9, 10), strict=True):
        receipt = issue(tmp_path, path, step=step)
        assert set(receipt.files) == {"model.bin", "parts/optimizer.bin"}
    assert newest_good_checkpoint(tmp_path) == str(paths[1])  # by steps: as texts, 9 comes behind 10
    assert [tree(path) for path in paths] == before


@pytest.mark.parametrize("damage", ["bit", "cut", "grown", "gone", "unreadable"])
def test_a_damaged_checkpoint_is_passed_over_and_named(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        issue(tmp_path, checkpoint(tmp_path, step), step=step)
    file = tmp_path / "checkpoint-2" / "parts" / "optimizer.bin"
    data = file.read_bytes()
    match damage:
        case "bit":
            file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        case "cut":
            os.truncate(file, len(data) - 1)
        case "grown":
            file.write_bytes(data + b"x")
        case "gone":
            file.unlink()
        case "unreadable":
            file.unlink()
            file.mkdir()
    with pytest.raises(CheckpointInvalid, match="optimizer"):
        verify(tmp_path, issued(tmp_path)[0])
    with caplog.at_level(logging.WARNING, logger="trainhooks"):
        assert newest_good_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")
    assert "optimizer.bin" in caplog.text


def test_what_has_no_receipt_is_not_resumed_from_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert newest_good_checkpoint(tmp_path) is None
    issue(tmp_path, checkpoint(tmp_path, 1), step=1)
    checkpoint(tmp_path, 2)
    with caplog.at_level(logging.WARNING, logger="trainhooks"):
        assert newest_good_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")
    assert "checkpoint-2" in caplog.text


def test_a_receipt_that_cannot_be_read_proves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2, 3):
        issue(tmp_path, checkpoint(tmp_path, step), step=step)
    by_step = {receipts._decode(path.read_bytes()).step: path for path in receipt_files(tmp_path)}
    by_step[3].write_bytes(by_step[3].read_bytes()[:40])
    by_step[2].write_bytes(by_step[2].read_bytes().replace(b'"v": 1', b'"v": 2'))
    with caplog.at_level(logging.WARNING, logger="trainhooks"):
        assert newest_good_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")
    assert "newer trainhooks" in caplog.text


def test_receipts_of_deleted_checkpoints_go(tmp_path: Path) -> None:
    first = checkpoint(tmp_path, 1)
    issue(tmp_path, first, step=1)
    for file in tree(first):
        (first / file).unlink()
    (first / "parts").rmdir()
    first.rmdir()
    assert newest_good_checkpoint(tmp_path) is None
    issue(tmp_path, checkpoint(tmp_path, 2), step=2)
    assert len(receipt_files(tmp_path)) == 1


def test_a_single_file_outside_of_the_output_directory(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere.ckpt"
    elsewhere.write_bytes(b"weights")
    issue(out, elsewhere, step=5)
    assert newest_good_checkpoint(out) == str(elsewhere)
    elsewhere.write_bytes(b"weightz")
    assert newest_good_checkpoint(out) is None


def test_a_checkpoint_that_is_written_again_has_the_receipt_of_its_new_files(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 1)
    issue(tmp_path, path, step=1)
    (path / "model.bin").write_bytes(b"other weights")
    assert newest_good_checkpoint(tmp_path) is None
    issuer = Receipts(tmp_path)
    issuer.issue(path, step=1)
    issuer.close()
    assert newest_good_checkpoint(tmp_path) == str(path)
    assert len(receipt_files(tmp_path)) == 1


def test_a_disk_that_refuses_is_reported_and_the_training_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = checkpoint(tmp_path, 1)
    (tmp_path / "progress").write_bytes(b"a file where the folder should be")
    issuer = Receipts(tmp_path)
    with caplog.at_level(logging.WARNING, logger="trainhooks"):
        issuer.issue(path, step=1)
        issuer.close()
    assert "will not be resumed from" in caplog.text


def receipt_files(root: Path) -> list[Path]:
    return sorted((root / "progress" / receipts.FOLDER).glob("*.json"))
