"""Checkpoints on disk: whole, or not believed."""

import os
import shutil
import time
from pathlib import Path

import pytest

from trainhooks.core.manifest import MANIFEST, Manifest
from trainhooks.core.retention import PINNED, Retention
from trainhooks.errors import CheckpointFailed, CheckpointInvalid
from trainhooks.storage import verification
from trainhooks.storage.checkpoints import QUARANTINE, Checkpoint, CheckpointStore
from trainhooks.storage.tensors import Blob


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", "feed")


def publish(store: CheckpointStore, step: int, *, tags: tuple[str, ...] = ()) -> Checkpoint:
    draft = store.begin(step)
    draft.write_tensors("model", [Blob(name="w", dtype="U8", shape=(64,), data=memoryview(os.urandom(64)))])
    draft.write_text("state.json", b'{"v": 1}')
    manifest = Manifest(
        step=step,
        serial=store.next_serial(),
        session_id=store.session_id,
        attempt=1,
        created_at=time.time(),
        files=draft.files,
        tags=tags,
    )
    return store.publish(draft, manifest)


def steps(store: CheckpointStore) -> list[int]:
    return [each.manifest.step for each in store.published()]


def newest_step(store: CheckpointStore) -> int:
    found = store.newest_good()
    assert found is not None
    return found.manifest.step


def test_nothing_was_ever_saved(store: CheckpointStore) -> None:
    assert store.newest_good() is None


def test_the_newest_good_one_is_found(store: CheckpointStore) -> None:
    for step in (8, 9, 10, 1_000_000_000):
        publish(store, step)
    assert newest_step(store) == 1_000_000_000
    assert steps(store) == [8, 9, 10, 1_000_000_000]


def test_every_flipped_byte_of_every_file_is_found(store: CheckpointStore) -> None:
    checkpoint = publish(store, 1)
    for path in sorted(checkpoint.path.iterdir()):
        text = path.read_bytes()
        for place in range(len(text)):
            path.write_bytes(text[:place] + bytes([text[place] ^ 0x20]) + text[place + 1 :])
            with pytest.raises(CheckpointInvalid):
                verification.verify(checkpoint.path)
        for shorter in (text[:-1], b""):
            path.write_bytes(shorter)
            with pytest.raises(CheckpointInvalid):
                verification.verify(checkpoint.path)
        path.write_bytes(text)
    verification.verify(checkpoint.path)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", MANIFEST])
def test_a_missing_file_is_found(store: CheckpointStore, name: str) -> None:
    publish(store, 1)
    (publish(store, 2).path / name).unlink()
    assert newest_step(store) == 1


def test_an_added_file_or_link_is_found(store: CheckpointStore) -> None:
    checkpoint = publish(store, 1)
    (checkpoint.path / ".DS_Store").write_bytes(b"the Finder's")
    verification.verify(checkpoint.path)
    (checkpoint.path / "extra.bin").write_bytes(b"")
    with pytest.raises(CheckpointInvalid, match=r"extra\.bin"):
        verification.verify(checkpoint.path)
    (checkpoint.path / "extra.bin").unlink()
    model = checkpoint.path / "model.safetensors"
    model.rename(store.root / "elsewhere")
    model.symlink_to(store.root / "elsewhere")
    with pytest.raises(CheckpointInvalid, match="link"):
        verification.verify(checkpoint.path)


def test_a_damaged_one_is_moved_aside_with_its_reason(store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    publish(store, 1)
    damaged = publish(store, 2).path
    (damaged / "model.safetensors").write_bytes(b"short")
    assert newest_step(store) == 1
    assert damaged.exists(), "to look changes nothing"
    store.move_damaged_aside()
    assert not damaged.exists()
    reason = store.root / QUARANTINE / "step-000000002.0.reason.txt"
    assert "5 bytes instead of" in reason.read_text()
    assert (store.root / QUARANTINE / "step-000000002.0" / "state.json").exists()
    said, moved = caplog.messages
    assert "5 bytes instead of" in said
    assert f"moved to {QUARANTINE}/step-000000002.0" in moved


def test_damage_never_means_a_silent_start_from_scratch(store: CheckpointStore) -> None:
    for step in (1, 2):
        (publish(store, step).path / "state.json").write_bytes(b"")
    for _ in range(2):  # also when it is asked a second time, all being in quarantine by then
        with pytest.raises(CheckpointInvalid, match=r"No checkpoint in .* has 0 bytes instead of") as raised:
            store.newest_good()
        assert raised.value.code == "no_good_checkpoint"
        assert "move" in raised.value.hint
    shutil.rmtree(store.root)
    assert store.newest_good() is None


def test_what_may_not_be_read_is_not_called_damaged(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = publish(store, 1)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(verification.durable_file, "digest", refuse)
    with pytest.raises(PermissionError):
        store.newest_good()
    assert checkpoint.path.exists()


def test_a_newer_format_is_left_alone(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, 1)
    monkeypatch.setattr("trainhooks.core.manifest.MANIFEST_VERSION", 2)
    newer = publish(store, 2).path
    monkeypatch.undo()
    with pytest.raises(CheckpointInvalid, match="upgrade"):
        store.newest_good()
    assert newer.exists()


def test_a_run_that_went_back_continues_from_what_it_saved_last(store: CheckpointStore) -> None:
    for step in (10, 20, 5):
        publish(store, step)
    assert newest_step(store) == 5


def test_a_step_that_is_saved_again_replaces_the_old_one_only_once_it_is_there(store: CheckpointStore) -> None:
    first, second = publish(store, 3), publish(store, 3)
    assert first.path.exists()
    assert first.path != second.path
    found = store.newest_good()
    assert found is not None
    assert found.path == second.path
    publish(store, 4)
    assert store.prune(Retention(keep_last=2)) == [first.path]


def test_only_what_the_session_published_is_deleted(store: CheckpointStore) -> None:
    other = CheckpointStore(store.root, "cafe")
    publish(other, 1)
    (store.root / "step-000000000").mkdir()
    (store.root / "step-000000000" / "mine.pt").write_bytes(b"a user's")
    (store.root / ".draft-cafe-000000009").mkdir()
    for step in (2, 3, 4, 5):
        publish(store, step, tags=(PINNED,) if step == 2 else ())
    gone = store.prune(Retention(keep_last=2))
    assert [path.name for path in gone] == ["step-000000003"]
    assert steps(store) == [1, 2, 4, 5]
    store.clean()
    assert (store.root / "step-000000000" / "mine.pt").exists()
    assert (store.root / ".draft-cafe-000000009").exists()


def test_half_written_and_half_deleted_ones_are_never_found_and_go_at_the_next_start(store: CheckpointStore) -> None:
    publish(store, 1)
    draft = store.begin(2)
    draft.write_text("state.json", b"{}")
    doomed = store.root / ".doomed-feed-step-000000000"
    doomed.mkdir()
    assert newest_step(store) == 1
    store.clean()
    assert not draft.path.exists()
    assert not doomed.exists()


def test_what_comes_back_from_the_disk_otherwise_than_written_is_not_published(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = store.begin(1)
    draft.write_text("state.json", b"{}")
    manifest = Manifest(step=1, serial=1, session_id="feed", attempt=1, created_at=0.0, files=draft.files)
    (draft.path / "state.json").write_bytes(b"[]")
    with pytest.raises(CheckpointInvalid, match="damaged"):
        store.publish(draft, manifest)
    assert store.published() == []


def test_space_is_asked_for_before_anything_is_written(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    size = publish(store, 1).manifest.size_bytes
    free = {"bytes": int(1.2 * size)}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": free["bytes"]}))
    store.require_space(0)
    free["bytes"] -= 1
    with pytest.raises(CheckpointFailed) as raised:
        store.require_space(0)
    assert raised.value.code == "no_space"
    free["bytes"] = 10**6
    with pytest.raises(CheckpointFailed):
        store.require_space(10**6 + 1)
