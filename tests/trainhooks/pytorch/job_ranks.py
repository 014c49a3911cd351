"""What two ranks say to each other: python job_ranks.py OUT. Prints one JSON line."""

import json
import time

import torch.distributed as dist

from trainhooks.core.ranks import failures
from trainhooks.pytorch.distributed import connect


def main() -> None:
    dist.init_process_group("gloo")
    ranks = connect()
    gathered = [text.decode() for text in ranks.gather(b"x" * ranks.rank)]
    shared = ranks.share(f"from {ranks.rank}".encode()).decode()
    nothing = ranks.share(b"").decode()
    failed = failures(ranks, OSError("disk full") if ranks.rank == 1 else None)
    fine = failures(ranks, None)
    learnt = [ranks.exchange(wish) for wish in ([0, 2, 0, 0] if ranks.rank == 1 else [0, 0, 1, 0])]
    ranks.barrier()
    begin = time.perf_counter()
    for _ in range(200):
        ranks.exchange(0)
    each_us = (time.perf_counter() - begin) / 200 * 1e6
    ranks.barrier()
    print(json.dumps([gathered, shared, nothing, failed, fine, learnt, each_us]), flush=True)
    ranks.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
