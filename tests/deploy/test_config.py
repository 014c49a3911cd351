"""The example config: it loads as it stands, and every commented-out line names a real setting and its default."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from kdproxy.settings import Settings, load

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "kdproxy.example.toml"
# Their defaults are absent or empty, so the example shows one instead.
WITHOUT_DEFAULT = {"token_file", "prices", "upstreams", "port_file"}
TOKEN = "not-a-secret-" * 2


def _uncommented(text: str) -> str:
    return re.sub(r"^# (?=[a-z_]+ = |\[)", "", text, flags=re.MULTILINE)


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """The example with every setting switched on, and the files that it names put where they can be read."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    config = tmp_path / "kdproxy.toml"
    config.write_text(_uncommented(EXAMPLE.read_text(encoding="utf-8")).replace("/etc/kdproxy/token", str(token)))
    return config


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a working directory without a data directory."""
    monkeypatch.chdir(tmp_path)


def test_example_changes_nothing_as_it_stands() -> None:
    loaded = load({}, environment={}, config=EXAMPLE)
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_every_line_of_the_example_is_taken(everything: Path) -> None:
    loaded = load({}, environment={"OPENAI_API_KEY": "upstream-key"}, config=everything)
    assert [upstream.name for upstream in loaded.settings.upstreams] == ["teacher", "lab"]
    assert loaded.settings.credentials["teacher"][0].reveal() == "upstream-key"
    assert loaded.settings.token is not None
    assert loaded.settings.token.reveal() == TOKEN


def test_example_knows_every_setting_and_states_its_default(everything: Path) -> None:
    loaded = load({}, environment={"OPENAI_API_KEY": "upstream-key"}, config=everything)
    named = {name for name, origin in loaded.origins.items() if origin == str(everything)}
    settable = {field.name for field in fields(Settings) if field.metadata["parse"] is not None}
    assert named == settable
    for name in settable - WITHOUT_DEFAULT:
        assert getattr(loaded.settings, name) == getattr(Settings(), name), name
