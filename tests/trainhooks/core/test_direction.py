"""Which way a metric goes is told from its name, or said by the user in words that are checked."""

import pytest

from trainhooks import Best, Mode
from trainhooks.core.direction import direction_of
from trainhooks.core.retention import Candidate, Retention, doomed
from trainhooks.errors import ConfigInvalid

RISING = [
    "acc", "accuracy", "val/acc", "val_accuracy", "top1", "top_5_acc", "eval_f1", "f1-score", "macro_f1",
    "auc", "auroc", "val/AUROC", "precision", "recall@10", "mAP_50", "mAP", "mIoU", "dice", "psnr", "ssim", "bleu",
    "sacrebleu",
    "rougeL", "rouge_l", "exact_match", "pass@1", "reward", "eval/rewards/accuracies_acc", "win_rate", "success_rate",
    "r2", "spearman", "ndcg@10", "valAccuracy", "score",
]  # fmt: skip
FALLING = [
    "loss", "val_loss", "accuracy_loss", "eval_loss", "perplexity", "wer", "cer", "mse", "rmse", "mae", "error_rate",
    "nll", "kl", "fid", "grad_norm", "learning_rate", "precision_error", "negative_log_likelihood", "map_loss",
    "memory",
]  # fmt: skip


@pytest.mark.parametrize("name", RISING)
def test_what_rises(name: str) -> None:
    assert direction_of(name) is Mode.MAX


@pytest.mark.parametrize("name", FALLING)
def test_what_falls(name: str) -> None:
    assert direction_of(name) is Mode.MIN


@pytest.mark.parametrize(("mode", "kept"), [("max", {2}), (Mode.MAX, {2}), ("min", {1}), (Mode.MIN, {1}), (None, {2})])
def test_the_mode_may_be_text(mode: str | None, kept: set[int]) -> None:
    values = {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.4}
    candidates = [Candidate(serial=at, step=at, metrics={"acc": each}, tags=frozenset()) for at, each in values.items()]
    rules = Retention(keep_last=2, keep_best=Best(metric="acc", mode=mode))
    assert {1, 2} - set(doomed(candidates, rules)) == kept


def test_an_unknown_mode_is_an_error_at_once() -> None:
    with pytest.raises(ConfigInvalid, match="maximum"):
        Best(metric="acc", mode="maximum")


def test_nothing_is_deleted_while_no_checkpoint_has_the_metric() -> None:
    candidates = [Candidate(serial=at, step=at, metrics={"val_loss": 1.0}, tags=frozenset()) for at in range(6)]
    assert doomed(candidates, Retention(keep_last=2, keep_best=Best(metric="eval_loss"))) == []
    assert len(doomed(candidates, Retention(keep_last=2))) == 4
