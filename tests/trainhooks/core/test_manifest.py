"""A manifest says what it was told, or nothing."""

import pytest

from trainhooks.core import manifest as manifests
from trainhooks.core.manifest import FileRecord, Manifest
from trainhooks.errors import CheckpointInvalid

MANIFEST = Manifest(
    step=12,
    serial=3,
    session_id="0123456789abcdef",
    attempt=2,
    created_at=1_790_000_000.25,
    files={"model.safetensors": FileRecord(size_bytes=10, sha256="ab" * 32)},
    metrics={"loss": 0.1},
    tags=("best so far", "ü"),
    world=4,
)


def test_is_read_as_it_was_written() -> None:
    assert manifests.decode(manifests.encode(MANIFEST)) == MANIFEST


def test_every_flipped_bit_of_it_is_found() -> None:
    text = manifests.encode(MANIFEST)
    for place in range(len(text)):
        for bit in range(8):
            changed = bytearray(text)
            changed[place] ^= 1 << bit
            with pytest.raises(CheckpointInvalid):
                manifests.decode(bytes(changed))


def test_every_truncation_and_addition_is_found() -> None:
    text = manifests.encode(MANIFEST)
    for changed in [*(text[:length] for length in range(len(text))), text + b"\n", text + b" ", text + text]:
        with pytest.raises(CheckpointInvalid):
            manifests.decode(changed)


def test_a_newer_version_is_distinguished_from_damage() -> None:
    body = manifests.encode(MANIFEST).replace(b'"v": 1', b'"v": 2')
    with pytest.raises(CheckpointInvalid) as damaged:
        manifests.decode(body)
    assert damaged.value.code == "checkpoint_invalid"
    version, manifests.MANIFEST_VERSION = manifests.MANIFEST_VERSION, 2
    try:
        newer = manifests.encode(MANIFEST)
    finally:
        manifests.MANIFEST_VERSION = version
    with pytest.raises(CheckpointInvalid, match="version 2") as raised:
        manifests.decode(newer)
    assert raised.value.code == "checkpoint_newer"
