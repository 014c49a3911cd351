"""One name per measured thing, however its writer spelt it. Unknown names stay as they are."""

import difflib
import re
from collections.abc import Iterable, Mapping

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "step": ("step", "global_step", "steps", "iteration", "iter", "trainer/global_step"),
    "epoch": ("epoch", "epochs"),
    "train/loss": ("train/loss", "loss", "train_loss", "training_loss", "train_loss_step", "train_loss_epoch"),
    "val/loss": ("val/loss", "val_loss", "eval_loss", "valid_loss", "validation_loss", "eval/loss", "validation/loss"),
    "train/perplexity": ("train/perplexity", "train_perplexity", "train_ppl"),
    "val/perplexity": ("val/perplexity", "val_perplexity", "eval_perplexity", "val_ppl", "eval_ppl"),
    "perplexity": ("perplexity", "ppl"),
    "learning_rate": ("learning_rate", "lr", "train/learning_rate", "train/lr"),
    "grad_norm": ("grad_norm", "gradient_norm", "train/grad_norm", "grad_norm_total"),
    "samples_per_second": ("samples_per_second", "train_samples_per_second", "throughput", "samples_per_sec"),
    "tokens_per_second": ("tokens_per_second", "train_tokens_per_second", "tokens_per_sec"),
    "steps_per_second": ("steps_per_second", "train_steps_per_second", "it_per_sec"),
    "samples": ("samples", "samples_processed", "num_input_samples"),
    "tokens": ("tokens", "tokens_processed", "num_input_tokens_seen"),
    "time": ("time", "at", "t", "timestamp", "_timestamp", "created_at"),
    "active_seconds": ("active_seconds", "elapsed_seconds", "train_runtime"),
    "eta_seconds": ("eta_seconds",),
}
NOT_MEASURED = frozenset({"step", "attempt", "time", "active_seconds", "eta_seconds", "replay", "lineage"})
"""Standard names that say where a row stands and nothing about the training."""
_COMPONENTS = "loss_components"

_LEARNING_RATE = re.compile(r"lr-[A-Za-z0-9_/-]+")
_BY_SPELLING = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}


def standard_name(spelling: str) -> str:
    """Return the standard name of a metric, or its own."""
    if _LEARNING_RATE.fullmatch(spelling):
        return "learning_rate"
    return _BY_SPELLING.get(spelling, spelling)


def near(wanted: str, names: Iterable[str]) -> list[str]:
    """Return the names that may have been meant: other spellings of the same thing first, then similar ones."""
    names = list(names)
    same = [name for name in names if standard_name(name) == standard_name(wanted)]
    similar = difflib.get_close_matches(wanted, [name for name in names if name not in same], cutoff=0.6)
    return [*same, *similar][:3]


def rank(spelling: str) -> int:
    """Return which of several spellings of one thing counts: the least."""
    spellings = SPELLINGS.get(standard_name(spelling), ())
    return spellings.index(spelling) if spelling in spellings else len(spellings)


def part_prefix(name: str) -> str:
    """Return what the names of a nested metric's parts begin with: `loss/` of `loss_components`."""
    return "loss/" if name == _COMPONENTS else f"{name}/"
