"""A checkpoint that does not fit says what does not, and changes nothing."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from tests.trainhooks.pytorch.objects import Holder, equal, model, save, train
from trainhooks.errors import StateUnsupported
from trainhooks.pytorch import rng
from trainhooks.pytorch.checkpoint import saver as savers
from trainhooks.pytorch.checkpoint.state import TrainingState


def unchanged(objects: dict[str, Any], before: dict[str, Any]) -> bool:
    return all(equal(each.state_dict(), before[name]) for name, each in objects.items() if name in before)


def other_head() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o: o.pop("scheduler"), "this training lacks the object scheduler"),
        (lambda o: o.update(extra=Holder(1)), "the checkpoint lacks the object extra"),
        (lambda o: o.update(model=other_head()), r"3\.weight was float32\[1, 8\] and is float32\[3, 8\]"),
        (lambda o: o.update(model=nn.Linear(6, 8)), r"lacks the keys 0\.bias, 0\.weight.*"),
        (lambda o: o.update(model=model().double()), r"0\.weight was float32\[8, 6\] and is float64\[8, 6\]"),
        (lambda o: o.update(optimizer=torch.optim.Adam(o["model"].parameters())), "class was AdamW and is Adam"),
        (
            lambda o: o.update(optimizer=torch.optim.AdamW(list(o["model"].parameters())[::-1])),
            "parameter shapes was",
        ),
        (lambda o: o.update(scheduler=lr_scheduler.StepLR(o["optimizer"], 3)), "class was CosineAnnealingLR and is"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_what_and_changes_nothing(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    def make(seed: int) -> dict[str, Any]:
        net = model()
        optimizer = torch.optim.AdamW(net.parameters())
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 10)
        train(net, optimizer, scheduler, seed)
        return {"model": net, "optimizer": optimizer, "scheduler": scheduler}

    checkpoint = save(tmp_path, make(5))
    objects = make(2)
    change(objects)
    live = TrainingState(objects)
    before = {name: torch.load(_dumped(each)) for name, each in objects.items()}
    numbers = torch.get_rng_state()
    with pytest.raises(StateUnsupported, match=words) as raised:
        savers.load(checkpoint, live)
    assert raised.value.code == "state_differs"
    assert unchanged(objects, before)
    assert torch.equal(numbers, torch.get_rng_state())


def _dumped(each: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(each.state_dict(), file)
    file.seek(0)
    return file


def test_an_object_that_refuses_while_it_loads_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    class Stubborn(Holder):
        """Takes half of what it gets."""

        def load_state_dict(self, state: Any) -> None:
            self.value = state
            if state == "saved":
                raise RuntimeError("I won't")

    saved_model = model()
    with torch.no_grad():
        saved_model[0].weight.zero_()
    checkpoint = save(tmp_path, {"model": saved_model, "a": Holder({"a": 1}), "b": Holder("saved")})
    objects = {"model": model(), "a": Holder({"a": 0}), "b": Stubborn("mine")}
    before = {"model": torch.load(_dumped(objects["model"])), "a": {"a": 0}, "b": "mine"}
    with pytest.raises(StateUnsupported, match="b does not take"):
        savers.load(checkpoint, TrainingState(objects))
    assert unchanged(objects, before)


def test_random_numbers_of_gpus_that_are_not_here_are_left() -> None:
    """Of a machine with more of them. Without one, they would wait for the first use of CUDA and fail there."""
    saved = rng.capture()
    saved["cuda"] = [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() + 2)
    saved["cuda"][: torch.cuda.device_count()] = torch.cuda.get_rng_state_all()
    waiting = len(torch.cuda._queued_calls)
    rng.restore(saved)
    assert len(torch.cuda._queued_calls) == waiting
