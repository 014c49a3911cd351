"""A training to rehearse: job_rehearse.py OUTPUT_DIR [forgets]. With `forgets`, an optimizer drops what it is given."""

import sys
from pathlib import Path
from typing import Any

import torch

from trainhooks import training_progress_context


def main() -> None:
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.2))
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    load = optimizer.load_state_dict
    if "forgets" in sys.argv:
        optimizer.load_state_dict = lambda state: load({**state, "state": {}})
    out = Path(sys.argv[1])
    with training_progress_context({"seed": 2}, out, 50, state={"model": model, "optimizer": optimizer}) as progress:
        progress.loader([torch.full((4,), float(each)) for each in range(40)], batch_size=4)
        for step, batch in progress.steps():
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            progress.update_metrics(step=step, loss=loss)
    Path(sys.argv[1]).mkdir(exist_ok=True)
    (out / "behind-the-loop").touch()


if __name__ == "__main__":
    main()
