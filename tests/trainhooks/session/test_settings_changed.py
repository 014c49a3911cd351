"""Hyperparameters that are changed between two attempts hold, or are refused: never overruled in silence."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from trainhooks import training_progress_context
from trainhooks.errors import ConfigInvalid, DriftBlocked, StateUnsupported

CUT = 6

Made = tuple[nn.Module, torch.optim.Optimizer, Any]


def make(lr: float = 0.1, decay: float = 0.0, horizon: int = 10, kind: str = "cosine") -> Made:
    torch.manual_seed(2)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
    scheduler: Any = {
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, horizon),
        "step": lambda: lr_scheduler.StepLR(optimizer, max(1, horizon // 5)),
        "lambda": lambda: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
        "one cycle": lambda: lr_scheduler.OneCycleLR(optimizer, lr, total_steps=horizon + 5),
        "sequence": lambda: lr_scheduler.SequentialLR(
            optimizer,
            [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(optimizer, horizon)],
            [3],
        ),
        "plateau": lambda: lr_scheduler.ReduceLROnPlateau(optimizer),
    }[kind]()
    return model, optimizer, scheduler


def train(out: Path, made: Made, until: int, **options: Any) -> list[float]:
    """Return the learning rate of each step that was done."""
    model, optimizer, scheduler = made
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    rates = []
    drift = {"total_steps": "allow", **options.pop("drift", {})}
    with training_progress_context({}, out, 10, state=state, database=False, drift=drift, **options) as progress:
        progress.loader([torch.ones(2), torch.zeros(2)])
        for step, batch in progress.steps():
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.zero_grad()
            model(batch).pow(2).sum().backward()
            optimizer.step()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scheduler.step(1.0) if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else scheduler.step()
            if step + 1 == until:
                progress.save_checkpoint()
                break
    return rates


CHANGES = {
    "lr": ({"lr": 0.1}, {"lr": 0.01}),
    "weight decay": ({"decay": 0.0}, {"decay": 0.3}),
    "horizon": ({"horizon": 10}, {"horizon": 20}),
}
KINDS = ["cosine", "step", "lambda", "one cycle", "sequence"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_difference_blocks_and_says_both_ways_out(tmp_path: Path, change: str) -> None:
    before, after = CHANGES[change]
    train(tmp_path, make(**before), CUT)
    with pytest.raises(DriftBlocked, match="hyperparameters") as refused:
        train(tmp_path, make(**after), 10)
    assert "restore='checkpoint'" in refused.value.hint
    assert "restore='state-only'" in refused.value.hint
    assert len(train(tmp_path, make(**before), 10)) == 10 - CUT


@pytest.mark.parametrize(
    ("kind", "change"),
    [(kind, change) for kind in KINDS for change in CHANGES if (kind, change) != ("lambda", "horizon")],
)
def test_state_only_holds_the_new_settings_with_the_saved_moments(tmp_path: Path, change: str, kind: str) -> None:
    before, after = CHANGES[change]
    train(tmp_path, first := make(**before, kind=kind), CUT)
    whole = train(tmp_path / "whole", make(**after, kind=kind), 10)
    made = make(**after, kind=kind)
    moments = first[1].state_dict()["state"][0]["exp_avg"]
    model, optimizer, scheduler = made
    with training_progress_context(
        {}, tmp_path, 10, state={"model": model, "optimizer": optimizer, "scheduler": scheduler}, restore="state-only"
    ):
        assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], moments)
        assert optimizer.param_groups[0]["weight_decay"] == after.get("decay", 0.0)
    rates = train(tmp_path, make(**after, kind=kind), 10, restore={"optimizer": "state-only"})
    assert rates == pytest.approx(whole[CUT:])
    assert train(tmp_path, make(**after, kind=kind), 10) == []


@pytest.mark.parametrize("change", CHANGES)
def test_checkpoint_holds_the_saved_settings_and_says_so(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = CHANGES[change]
    whole = train(tmp_path / "whole", make(**before), 10)
    train(tmp_path / "run", make(**before), CUT)
    made = make(**after)
    assert train(tmp_path / "run", made, 10, restore="checkpoint") == whole[CUT:]
    assert "hyperparameters." in caplog.text
    assert made[1].param_groups[0]["weight_decay"] == before.get("decay", 0.0)


def test_a_schedule_alone_is_no_difference(tmp_path: Path) -> None:
    for kind in (*KINDS, "plateau"):
        train(tmp_path / kind, make(kind=kind), CUT)
        assert len(train(tmp_path / kind, make(kind=kind), 10)) == 4


def plateau(lr: float = 0.1, **settings: Any) -> Made:
    model, optimizer, _ = make(lr)
    return model, optimizer, lr_scheduler.ReduceLROnPlateau(optimizer, **{"patience": 1, **settings})


@pytest.mark.parametrize(
    ("lr", "settings", "rates"),
    [
        (0.1, {"factor": 0.5}, [0.01, 0.005, 0.005]),
        (0.02, {}, [0.002, 0.0002, 0.0002]),  # it had been reduced once: 0.02 x 0.1
        (0.1, {"patience": 4}, [0.01, 0.01, 0.01]),
        (0.1, {"min_lr": 0.05}, [0.05, 0.05, 0.05]),
        (0.1, {"cooldown": 3, "patience": 2}, [0.01, 0.01, 0.001]),
    ],
    ids=str,
)
def test_a_plateau_under_new_settings_keeps_what_it_saw_and_reduced(
    tmp_path: Path, lr: float, settings: dict[str, Any], rates: list[float]
) -> None:
    assert train(tmp_path, plateau(), 4) == pytest.approx([0.1, 0.1, 0.1, 0.01])
    made = plateau(lr, **settings)
    after = train(tmp_path, made, 7, restore="state-only")
    assert made[2].best == 1.0
    assert after == pytest.approx(rates)


def test_a_plateau_keeps_its_reductions_where_the_checkpoint_settings_held_in_between(tmp_path: Path) -> None:
    train(tmp_path, plateau(0.1), 4)
    train(tmp_path, plateau(0.5), 5, restore="checkpoint")  # reduced twice, of 0.1
    assert train(tmp_path, plateau(0.5, patience=9), 7, restore="state-only") == pytest.approx([0.005, 0.005])


def test_a_plateau_that_looks_the_other_way_is_refused(tmp_path: Path) -> None:
    train(tmp_path, plateau(), CUT)
    with pytest.raises(StateUnsupported, match="mode='min' has seen the best value of another kind"):
        train(tmp_path, plateau(mode="max"), 10, restore="state-only")


@pytest.mark.parametrize(
    "wrong",
    ["new", {"optimizer": "new"}, {"model": "checkpoint"}, {"optimizer": "checkpoint", "scheduler": "state-only"}],
)
def test_words_of_restore_are_checked(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigInvalid, match="restore="):
        train(tmp_path, make(), 1, restore=wrong)


def test_an_evaluations_batch_size_does_not_block(tmp_path: Path) -> None:
    def attempt(**config: int) -> None:
        with training_progress_context(config, tmp_path, 4, state={"m": nn.Linear(1, 1)}, database=False) as progress:
            progress.loader([1.0, 2.0])
            for _ in progress.steps():
                progress.save_checkpoint()
                break

    attempt(batch_size=2, eval_batch_size=2, per_device_eval_batch_size=4)
    attempt(batch_size=2, eval_batch_size=8, per_device_eval_batch_size=8)
    with pytest.raises(DriftBlocked, match=r"config\.batch_size"):
        attempt(batch_size=4, eval_batch_size=8, per_device_eval_batch_size=8)


def test_how_a_tokenizer_was_called_last_is_no_drift() -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    from trainhooks.core.tokenizer import digest

    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a"))
    before = digest(tokenizer)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    assert digest(tokenizer) == before
    assert digest(Tokenizer(WordLevel({"a": 0, "c": 1}, unk_token="a"))) != before
