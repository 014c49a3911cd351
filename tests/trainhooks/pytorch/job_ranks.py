"""What two ranks say to each other: python job_ranks.py OUT. Prints one JSON line."""

import json
import threading
import time

import torch.distributed as dist

from trainhooks.pytorch.distributed import connect


def main() -> None:
    dist.init_process_group("gloo")
    ranks = connect()
    shared = ranks.share(f"from {ranks.rank}".encode()).decode()
    nothing = ranks.share(b"").decode()
    is_ok = [ranks.all_ok(ranks.rank == 0), ranks.all_ok(True)]
    learnt = [ranks.exchange(wish) for wish in ([0, 2, 0, 0] if ranks.rank == 1 else [0, 0, 1, 0])]
    written: list[bool] = []

    def write() -> None:
        """Speak beside the training, in another order on each rank."""
        written.extend(ranks.all_ok(ranks.rank == 0 or turn != 3) for turn in range(6))

    writer = threading.Thread(target=write)
    if ranks.rank == 0:
        writer.start()
    learnt += [ranks.exchange(0) for _ in range(6)]
    if ranks.rank == 1:
        writer.start()
    writer.join()
    begin = time.perf_counter()
    for _ in range(200):
        ranks.exchange(0)
    each_us = (time.perf_counter() - begin) / 200 * 1e6
    ranks.barrier()
    print(json.dumps([shared, nothing, is_ok, learnt, written, each_us]), flush=True)
    ranks.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
