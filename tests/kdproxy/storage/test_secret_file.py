"""The data directory's secret stays the same, closed to others, and never keeps a proxy from serving."""

import logging
import stat
from pathlib import Path

import pytest

from kdproxy.storage.layout import Place, examine
from kdproxy.storage.secret_file import load_secret


def test_a_secret_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    made = load_secret(tmp_path)
    assert len(made) == 32
    assert load_secret(tmp_path) == made
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    (tmp_path / "api_recovery.jsonl").touch()
    assert examine(tmp_path) is Place.OURS


@pytest.mark.parametrize("text", [b"", b"short\n", b"\xff" * 64, b"Z" * 64])
def test_a_damaged_secret_is_made_anew_and_reported(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_bytes(text)
    caplog.set_level(logging.WARNING)
    made = load_secret(tmp_path)
    assert load_secret(tmp_path) == made
    assert len(made) == 32


def test_where_none_can_be_written_one_lives_as_long_as_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret.new").mkdir()
    assert len(load_secret(tmp_path)) == 32
    assert "could not be written" in caplog.text
