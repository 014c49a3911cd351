"""A run that is not the one that it would go on with does not start; the error tells how it would."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from trainhooks import training_progress_context
from trainhooks.errors import ConfigInvalid, DriftBlocked

CONFIG = {"seed": 3, "batch_size": 2, "lr": 0.1, "log_every": 5, "hub_token": "word-of-passing"}


class Words:
    """A tokenizer."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def get_vocab(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}


def train(
    out: Path,
    config: Any = CONFIG,
    *,
    steps: int = 2,
    width: int = 4,
    data: int = 12,
    part: list[int] | None = None,
    **options: Any,
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(width, 1)
    state = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}
    options = {"checkpoint_every_steps": 1, "tokenizer": Words("a", "b"), **options}
    with training_progress_context(config, out, 6, state=state, **options) as progress:
        rows = [torch.full((width,), float(row)) for row in range(data)]
        progress.loader(rows if part is None else Subset(rows, part), batch_size=2)  # type: ignore[arg-type]
        for step, x in progress.steps():
            model(x).sum().backward()
            if step + 1 == steps:
                break
        progress.save_checkpoint()


def attempts(out: Path) -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = json.loads((out / "progress" / "session.json").read_bytes())["attempts"]
    return members


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"config": {**CONFIG, "batch_size": 4}}, "config.batch_size"),
        ({"config": {**CONFIG, "seed": 4}}, "config.seed"),
        ({"width": 5}, "model.model.shapes_sha256"),
        ({"data": 13}, "data.length"),
        ({"tokenizer": Words("b", "a")}, "tokenizer"),
    ],
)
def test_what_must_not_change_stops_the_run(tmp_path: Path, changed: dict[str, Any], name: str) -> None:
    train(tmp_path)
    before = sorted((tmp_path / "checkpoints").iterdir())
    with pytest.raises(DriftBlocked) as refused:
        train(tmp_path, **changed)
    assert f"{name} was " in str(refused.value)
    assert f"{name!r}: 'allow'" in refused.value.hint
    assert sorted((tmp_path / "checkpoints").iterdir()) == before
    train(tmp_path, steps=4)  # put back, it goes on


def test_another_part_of_the_same_data_is_other_data(tmp_path: Path) -> None:
    """As `random_split` gives it where it is not seeded."""
    train(tmp_path, part=[0, 1, 2, 3, 4, 5, 6, 7])
    with pytest.raises(DriftBlocked) as refused:
        train(tmp_path, part=[4, 5, 6, 7, 8, 9, 10, 11])
    assert "data.record.0" in str(refused.value)


def test_the_hint_is_the_way_in(tmp_path: Path) -> None:
    train(tmp_path)
    changed = {**CONFIG, "batch_size": 4}
    with pytest.raises(DriftBlocked) as refused:
        train(tmp_path, changed)
    drift = eval(refused.value.hint.split("drift=")[1].rstrip("."))
    train(tmp_path, changed, drift=drift, steps=4)
    assert attempts(tmp_path)[-1]["end"] == "closed"


def test_what_may_change_is_reported_and_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path)
    with caplog.at_level(logging.WARNING, logger="trainhooks"):
        train(tmp_path, {**CONFIG, "lr": 0.2, "log_every": 9}, steps=4)
    assert "config.lr was 0.1 and is 0.2" in caplog.text
    assert "log_every" not in caplog.text
    rows = [json.loads(line) for line in (tmp_path / "progress" / "metrics.jsonl").read_text().splitlines()]
    drifts = {row["fact"]: (row["before"], row["after"], row["policy"]) for row in rows if row.get("kind") == "drift"}
    assert drifts == {"config.lr": (0.1, 0.2, "warn"), "config.log_every": (5, 9, "allow")}


def test_it_is_compared_with_the_attempt_whose_checkpoint_it_is(tmp_path: Path) -> None:
    """A refused attempt in between does not become what the next one is compared with."""
    train(tmp_path)
    changed = {**CONFIG, "batch_size": 4}
    for _ in range(2):
        with pytest.raises(DriftBlocked):
            train(tmp_path, changed)


def test_provenance_is_in_session_json_and_no_secret_is(tmp_path: Path) -> None:
    train(tmp_path)
    facts = attempts(tmp_path)[0]["provenance"]
    assert {"config.lr", "environment.torch", "environment.deterministic", "model.model.parameters"} <= facts.keys()
    assert {"data.length", "data.record.0", "tokenizer", "world", "total_steps"} <= facts.keys()
    assert facts["config.hub_token"] == "***"
    assert b"word-of-passing" not in (tmp_path / "progress" / "session.json").read_bytes()


def test_a_mistaken_policy_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="'lr': 'warning'"):
        train(tmp_path, drift={"lr": "warning"})


def test_a_tokenizer_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="get_vocab"):
        train(tmp_path, tokenizer=object())
