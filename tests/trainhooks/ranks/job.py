"""A training on several ranks that saves every fourth step: python job.py OUT [FAULT RANK STEP].

FAULT happens once, on one rank, while it writes the checkpoint of a step: `ENOSPC`, `EIO`, `bug` (an error of no kind
that is tried again), `kill`, `freeze`. `publish` happens on rank 0 when its part is written. What the training ends
with is in OUT/final-RANK.
"""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from bits import digest, leave, settle

from trainhooks import CheckpointPolicy, training_progress_context
from trainhooks.errors import CheckpointFailed
from trainhooks.storage.checkpoints import CheckpointStore
from trainhooks.storage.draft import Draft

OUT = Path(sys.argv[1])
TOTAL = 12
EVERY = 4
PATIENCE_SECONDS = float(os.environ.get("PATIENCE", "60"))
HOW = os.environ.get("HOW", "synchronous")
"""`synchronous`, `asynchronous` or `demanded`: the loop asks for each checkpoint."""


def plant(fault: str, step: int) -> None:
    """Let something go wrong once, in the middle of the checkpoint of a step."""
    left = [fault]

    def happen(draft: Draft) -> None:
        if left and draft.path.name.endswith(f"{step:09d}"):
            left.clear()
            match fault:
                case "ENOSPC" | "EIO":
                    number = getattr(errno, fault)
                    raise OSError(number, os.strerror(number))
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "freeze":
                    os.kill(os.getpid(), signal.SIGSTOP)
                case _:
                    raise ZeroDivisionError("a planted bug")

    write_text, publish = Draft.write_text, CheckpointStore.publish

    def failing_write(draft: Draft, name: str, text: bytes) -> None:
        happen(draft)
        write_text(draft, name, text)

    def failing_publish(store: CheckpointStore, draft: Draft, manifest: Any) -> Any:
        happen(draft)
        return publish(store, draft, manifest)

    if fault == "publish":
        CheckpointStore.publish = failing_publish  # type: ignore[method-assign, assignment]
    else:
        Draft.write_text = failing_write  # type: ignore[method-assign, assignment]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    is_first_time = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if is_first_time and len(sys.argv) > 2 and int(sys.argv[3]) == rank:
        plant(sys.argv[2], int(sys.argv[4]))
    torch.manual_seed(1)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3), nn.Linear(16, 1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    policy = CheckpointPolicy(
        every_steps=None if HOW == "demanded" else EVERY,
        every_seconds=None,
        asynchronous=HOW == "asynchronous",
        max_overhead=None,
        patience_seconds=PATIENCE_SECONDS,
    )
    state = {"model": model, "optimizer": optimizer}
    with training_progress_context({"seed": 3}, OUT, TOTAL, state=state, checkpoints=policy) as progress:
        print("from", progress.current_step, flush=True)
        progress.loader([torch.randn(8, generator=torch.Generator().manual_seed(n)) for n in range(40)], batch_size=3)
        while progress.current_step < TOTAL:
            try:
                for step, x in progress.steps():
                    loss = model(x + torch.randn_like(x)).square().mean()
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    progress.update_metrics(step=step, loss=loss)
                    if (step + 1) % EVERY == EVERY - 1:
                        settle()
                    if HOW == "demanded" and (step + 1) % EVERY == 0:
                        progress.save_checkpoint()
            except CheckpointFailed as error:
                print("refused", error, flush=True)
    end = [model.module.state_dict(), optimizer.state_dict(), torch.rand(3)]
    (OUT / f"final-{rank}").write_text(digest(end))
    dist.barrier()  # rank 0 holds the store that the others take their leave from
    dist.destroy_process_group()


if __name__ == "__main__":
    leave(main)
