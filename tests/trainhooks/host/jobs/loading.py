"""Load with workers: python loading.py PIDS WORKERS METHOD [stuck]. Writes the worker of each of 8 batches."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from trainhooks.host.shield import WorkerInit, starting_workers


class Slow(Dataset[Any]):
    def __init__(self, is_stuck: bool) -> None:
        self.is_stuck = is_stuck

    def __len__(self) -> int:
        return 2_000

    def __getitem__(self, index: int) -> int:
        if self.is_stuck and index >= 8:
            time.sleep(600)
        time.sleep(0.001)
        return os.getpid()


def main() -> None:
    pids, workers, method, is_stuck = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], "stuck" in sys.argv
    got: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, lambda number, frame: got.append(int(number)))
    loader = DataLoader(
        Slow(is_stuck),
        batch_size=1,
        num_workers=workers,
        prefetch_factor=2,
        multiprocessing_context=method,
        worker_init_fn=WorkerInit(),
    )
    pids.with_suffix(".starting").touch()
    with starting_workers(method):
        batches = iter(loader)
    count = 0
    for batch in batches:
        count += 1
        if count <= 8:
            with pids.open("a") as file:
                file.write(f"{int(batch)}\n")
        if count == 8 and is_stuck:
            break
    print(f"batches={count} signals={sorted(set(got))}", flush=True)


if __name__ == "__main__":
    main()
