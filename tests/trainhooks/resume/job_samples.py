"""A training that asks its teacher at temperature 1: job_samples.py OUTPUT_DIR KIND WORKERS KILL_AT|never.

KIND is data: the data set asks for each item; ahead: it asks for a whole batch at once, naming each sample. Questions
come again and again, so the order of samples matters. Each step's answers are written to trace.jsonl.
"""

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from openai import OpenAI
from torch import nn

from trainhooks import training_progress_context

TOTAL, SAMPLES, BATCH, EVERY, QUESTIONS = 9, 200, 4, 3, 3
WIDE = 8


@cache
def client(pid: int) -> OpenAI:
    """A client of its own in each process."""
    return OpenAI(max_retries=0)


def ask(number: int, sample: int | None = None) -> str:
    headers = {} if sample is None else {"Kdproxy-Sample": str(sample)}
    messages: Any = [{"role": "user", "content": f"What is {number % QUESTIONS}?"}]
    answer = client(os.getpid()).chat.completions.create(
        model="gpt-4.1", messages=messages, temperature=1, extra_headers=headers
    )
    return str(answer.choices[0].message.content)


class Asking:
    """Items that are asked for when they are loaded."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> str:
        return ask(index)


class Ahead:
    """Batches whose items are asked for at once, each by its own sample."""

    def __len__(self) -> int:
        return SAMPLES * 8

    def __getitem__(self, index: int) -> str:
        return ask(index, index // QUESTIONS)

    def __getitems__(self, indices: list[int]) -> list[str]:
        with ThreadPoolExecutor(WIDE) as pool:
            return list(pool.map(self.__getitem__, indices))


def main() -> None:
    out, kind, workers, kill_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    torch.manual_seed(1)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    state = {"model": model, "optimizer": optimizer}
    data: Any = Ahead() if kind == "ahead" else Asking()
    options: dict[str, Any] = {"batch_size": WIDE if kind == "ahead" else BATCH, "num_workers": workers}
    with (
        training_progress_context({"seed": 5}, out, TOTAL, state=state, checkpoint_every_steps=EVERY) as progress,
        (out / "trace.jsonl").open("a", buffering=1) as trace,
    ):
        progress.loader(data, **options)
        for step, batch in progress.steps():
            answers = list(batch)
            trace.write(json.dumps({"step": step, "answers": answers}) + "\n")
            if str(step) == kill_at:
                progress.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            loss = model(torch.tensor([[float(len(answer))] for answer in answers]) / 100).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress.update_metrics(step=step, loss=loss)


if __name__ == "__main__":
    main()
