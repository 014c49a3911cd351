"""A distillation that a test kills and starts again: job.py OUTPUT_DIR KIND WORKERS KILL_AT|never [ROWS].

KIND is asking: the data set asks the teacher for each sample, as it is loaded; exported: samples are rows of `kdproxy
export`; loop: the loop asks, in each step. Each step's answers are written to trace.jsonl as the loop sees them.
"""

import json
import os
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from openai import DefaultHttpxClient, OpenAI
from torch import nn

from trainhooks import lineage, training_progress_context

TOTAL, SAMPLES, BATCH, EVERY = 12, 22, 4, 3
MODEL = "gpt-4.1"


@cache
def client(pid: int) -> OpenAI:
    """A client that reads the proxy's headers, in each process its own."""
    return OpenAI(http_client=DefaultHttpxClient(event_hooks={"response": [lineage.note]}))


def ask(number: int) -> str:
    messages: Any = [{"role": "user", "content": f"What is {number}?"}]
    answer = client(os.getpid()).chat.completions.create(model=MODEL, messages=messages, temperature=0)
    return str(answer.choices[0].message.content)


class Asking:
    """Samples that are bought when they are loaded."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"answer": ask(index)}


class Exported:
    """Rows of `kdproxy export --format chat`, their columns `key` and `ordinal` left in."""

    def __init__(self, path: Path) -> None:
        self.rows = [json.loads(line) for line in path.read_text().splitlines()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {"answer": row["messages"][-1]["content"], "key": row["key"], "ordinal": row["ordinal"]}


def main() -> None:
    out, kind, workers, kill_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    if kind != "exported":
        ask(0)  # ahead of time: this is of no sample that is loaded later
    torch.manual_seed(1)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    state = {"model": model, "optimizer": optimizer}
    data: Any = Exported(Path(sys.argv[5])) if kind == "exported" else Asking() if kind == "asking" else range(SAMPLES)
    with (
        training_progress_context({"seed": 5}, out, TOTAL, state=state, checkpoint_every_steps=EVERY) as progress,
        (out / "trace.jsonl").open("a", buffering=1) as trace,
    ):
        progress.loader(data, batch_size=BATCH, num_workers=workers)
        for step, batch in progress.steps():
            answers = batch["answer"] if kind != "loop" else [ask(number) for number in batch.tolist()]
            trace.write(json.dumps({"step": step, "answers": answers}) + "\n")
            if str(step) == kill_at:
                progress.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            loss = model(torch.tensor([[float(len(answer))] for answer in answers]) / 100).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress.update_metrics(step=step, loss=loss)
    (out / "final.txt").write_text(repr([each.tolist() for each in model.parameters()]))


if __name__ == "__main__":
    main()
