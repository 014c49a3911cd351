"""Which checkpoint of a folder is the newest: by name, content or file time."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainhooks.recovery.found import SavedModel
from trainhooks.recovery.place import changed_at, is_torch_file, stem_of

_PART = re.compile(r"([A-Za-z]*)[-_=. ]?(\d+)(?![\d.]*\d*e)")
_EPOCH = frozenset({"epoch", "epochs", "ep", "e"})
_STEP = frozenset(
    {"step", "steps", "iter", "iters", "iteration", "iterations", "it", "gs", "update", "updates", "checkpoint", "ckpt"}
)
_METRIC = frozenset(
    {"loss", "acc", "accuracy", "score", "ppl", "perplexity", "map", "iou", "psnr", "fid", "v", "version"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What a file name says about when its checkpoint was taken."""

    step: int | None = None
    epoch: int | None = None
    other: int | None = None
    """A number without a word, such as in `model_3.pt`."""

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of numbers in the name: only names with the same kinds are compared."""
        return frozenset(name for name in ("step", "epoch", "other") if getattr(self, name) is not None)

    @property
    def key(self) -> tuple[int, int, int]:
        """The sort key among names of the same kinds: a step mostly counts over all epochs."""
        return (self.epoch or 0, self.step or 0, self.other or 0)


def numbers_in(name: str) -> Numbers:
    """Read a file's name: `ckpt_1000`, `epoch=3-step=1200`, `checkpoint-3.pth.tar`, `0010`."""
    found: dict[str, int] = {}
    for word, number in _PART.findall(stem_of(name)):
        kind = word.lower()
        if kind in _METRIC:
            continue
        found["epoch" if kind in _EPOCH else "step" if kind in _STEP else "other"] = int(number)
    if "step" in found or "epoch" in found:
        found.pop("other", None)
    return Numbers(**found)


def in_order(checkpoints: Sequence[SavedModel]) -> tuple[list[SavedModel], str | None]:
    """Put a folder's checkpoints in order, oldest first; the second value is a sentence if the order is uncertain.

    The numbers in the names decide if all names have the same kinds of them, else the steps inside if all have one,
    else the epochs inside, else the file times.
    """
    numbers = [numbers_in(saved.path.name) for saved in checkpoints]
    doubt = None
    if len({each.kinds for each in numbers}) == 1 and numbers[0].kinds:
        ordered = [saved for _, saved in sorted(zip(numbers, checkpoints, strict=True), key=lambda pair: pair[0].key)]
    elif all(saved.step is not None for saved in checkpoints):
        ordered = sorted(checkpoints, key=lambda saved: (saved.step or 0, changed_at(saved.path)))
    elif all(saved.epoch is not None for saved in checkpoints):
        ordered = sorted(checkpoints, key=lambda saved: (saved.epoch or 0, changed_at(saved.path)))
    else:
        ordered = sorted(checkpoints, key=lambda saved: changed_at(saved.path))
        if len(ordered) > 1:
            doubt = (
                f"Neither names nor contents order all {len(ordered)} checkpoints: the file written last is taken as"
                f" the last one, {ordered[-1].path.name}."
            )
    return [replace(saved, order=number) for number, saved in enumerate(ordered)], doubt


def torch_files(root: Path) -> list[SavedModel]:
    """Return the torch files of a folder with the numbers in their names."""
    if not root.is_dir():
        return []
    found = []
    for path in sorted(file for file in root.iterdir() if is_torch_file(file.name)):
        numbers = numbers_in(path.name)
        found.append(
            SavedModel(
                path=path,
                step=numbers.step if numbers.step is not None else numbers.other,
                epoch=numbers.epoch,
                tags=("best",) if "best" in stem_of(path.name) else (),
            )
        )
    return found
