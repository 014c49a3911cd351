"""trainhooks' public API as a typed script uses it. mypy reads this file (make check); nothing runs it."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from torch import Tensor, nn

from trainhooks import (
    Best,
    CheckpointPolicy,
    MetricValue,
    Mode,
    Peek,
    ProgressTracker,
    Summary,
    TrainingProgressContext,
    calculate_metrics_from_step,
    newest_good_checkpoint,
    peek,
    retry_api_call,
    samples_per_second,
    setup_progress_tracking,
    tokens_per_second,
    training_progress_context,
)
from trainhooks.storage.checkpoints import Checkpoint

model = nn.Linear(4, 1)
optimizer = torch.optim.AdamW(model.parameters())
state = {"model": model, "optimizer": optimizer}
policy = CheckpointPolicy(every_steps=100, keep_best=Best(metric="eval_loss", mode=Mode.MIN))
by_name: MetricValue = {"layers": [0.1, 0.2], "head": {"norm": torch.tensor(1.0)}}

with training_progress_context(
    {"seed": 1},
    Path("run"),
    1_000,
    state=state,
    checkpoints=policy,
    grace_seconds=60,
    drift={"config.notes": "allow"},
    restore={"optimizer": "state-only"},
    database=False,
) as progress:
    assert_type(progress, TrainingProgressContext)
    progress.loader(torch.utils.data.TensorDataset(torch.randn(8, 4)), batch_size=2, shuffle=True)
    for step, batch in progress.steps():
        assert_type(step, int)
        assert_type(batch, Any)
        loss: Tensor = model(batch[0]).square().mean()
        progress.update_metrics(
            step,
            loss,
            loss_components={"kd": loss, "ce": 0.5},
            learning_rate=1e-4,
            samples_processed=2 * step,
            grad_norm=np.float32(1.5),
            note="warm-up",
            norms=by_name,
            left_out=None,
        )
        progress.save_checkpoint(tags=("pinned",), metrics={"eval_loss": 1.0})
    assert_type(progress.summary(), Summary)

tracker = setup_progress_tracking({"seed": 1}, "run", 10, checkpoint_every_steps=5, state=state)
assert_type(tracker.save_checkpoint(), Checkpoint | None)
tracker.update_metrics(0, loss=object())  # type: ignore[arg-type]
tracker.close()

assert_type(peek("run"), Peek | None)
assert_type(newest_good_checkpoint("run"), str | None)
assert_type(ProgressTracker({}, "run", 1).current_step, int)
samples_per_second(10, 2.0)
tokens_per_second(10, 128, 2.0)
calculate_metrics_from_step(loss=torch.tensor(1.0))
setup_progress_tracking({}, "run", 1, chekpoints=policy)  # type: ignore[call-arg]


@retry_api_call()
def ask(prompt: str) -> str:
    """Ask a teacher."""
    return prompt


assert_type(ask("prompt"), str)
