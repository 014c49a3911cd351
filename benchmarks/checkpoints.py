"""What a checkpoint costs a training, beside what PyTorch offers: python benchmarks/checkpoints.py [--gpu [--large]].

Every round takes each way once, in turn, in one process and on one training: ten steps, the save, ten steps, the wait
until it is durable. Without --gpu the state has about 105 MB; with it, it is that of a GPT-2 of 124 M parameters under
AdamW, 1.49 GB; with --large, of one of 774 M, 9.3 GB.
"""
# mypy: disable-error-code="attr-defined, method-assign"

import argparse
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions  # noqa: E402

from trainhooks.core.policy import CheckpointPolicy  # noqa: E402
from trainhooks.pytorch.checkpoint.saver import Saver  # noqa: E402
from trainhooks.pytorch.checkpoint.state import TrainingState  # noqa: E402
from trainhooks.storage import atomic  # noqa: E402
from trainhooks.storage.checkpoints import CheckpointStore  # noqa: E402

STEPS = 10
"""Before a save and after it, as the goal has it."""


class Block(nn.Module):
    """A block of GPT-2."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.attention(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = (each.transpose(1, 2) for each in parts.unbind(2))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Training:
    """A language model under AdamW, trained on random tokens."""

    def __init__(self, *, on_gpu: bool, is_large: bool = False) -> None:
        self.device = "cuda" if on_gpu else "cpu"
        shape = (50257, 1280, 36, 1024, 8) if is_large else (50257, 768, 12, 1024, 8)
        vocabulary, width, layers, length, batch = shape if on_gpu else (8000, 256, 8, 64, 4)
        self.holds_gradients = False
        """Zeroes gradients at the beginning of a step and not at its end."""
        self.before_update: Callable[[], object] | None = None
        """Called once, before the next update of the weights."""
        self.embedding, self.place = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[Block(width, width // 64) for _ in range(layers)])
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        self.model = nn.ModuleList([self.embedding, self.place, self.blocks, self.head]).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=on_gpu)
        self.tokens = torch.randint(vocabulary, (batch, length), device=self.device)
        self.places = torch.arange(length, device=self.device)

    def step(self) -> None:
        if self.holds_gradients:
            self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            hidden = self.blocks(self.embedding(self.tokens) + self.place(self.places))
            loss = nn.functional.cross_entropy(self.head(hidden).flatten(0, 1), self.tokens.flatten())
        loss.backward()
        if self.before_update is not None:
            self.before_update()
            self.before_update = None
        self.optimizer.step()
        if not self.holds_gradients:
            self.optimizer.zero_grad()

    def run(self, steps: int) -> float:
        """Seconds that `steps` take, the GPU's work included."""
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def size_bytes(self) -> int:
        each = [*self.model.parameters(), *self.optimizer.state_dict()["state"].values()]
        tensors = [tensor for item in each for tensor in (item.values() if isinstance(item, dict) else [item])]
        return sum(tensor.nbytes for tensor in tensors)


Begin = Callable[[Path], Callable[[], float | None]]
"""Begins a save into a fresh directory; returns what waits until it is durable and says when that was, on
`time.perf_counter`, or None: when it had returned."""


def torch_save(training: Training, *, is_durable: bool) -> Begin:
    def begin(path: Path) -> Callable[[], float | None]:
        with (path / "state.pt").open("wb") as file:
            torch.save(training.state(), file)
            if is_durable:
                file.flush()
                atomic.sync_file(file.fileno())
        return lambda: None

    return begin


def dcp_save(training: Training) -> Begin:
    def begin(path: Path) -> Callable[[], float | None]:
        dcp.save(training.state(), checkpoint_id=path / "dcp", no_dist=True)
        return lambda: None

    return begin


def dcp_async_save(training: Training) -> Begin:
    def begin(path: Path) -> Callable[[], float | None]:
        future: Any = dcp.async_save(training.state(), checkpoint_id=path / "dcp")
        ended: list[float] = []
        future.add_done_callback(lambda _: ended.append(time.perf_counter()))

        def finish() -> float:
            future.result()
            return ended[0] if ended else time.perf_counter()

        return finish

    return begin


def dcp_staged_save(training: Training) -> Begin:
    """With its best stager: pinned and shared memory, copied by a thread. Until that is done no weight may change."""
    stager = DefaultStager(StagingOptions())
    dispatch = stager._state_dict_stager._deepcopy_dispatch
    known = dict(dispatch)

    def begin(path: Path) -> Callable[[], float | None]:
        dispatch.update(known)  # torch 2.11 empties it while it stages: a second save raises KeyError: <class 'type'>
        response: Any = dcp.async_save(training.state(), checkpoint_id=path / "dcp", async_stager=stager)
        ended: list[float] = []
        response.upload_completion.add_done_callback(lambda _: ended.append(time.perf_counter()))
        training.before_update = response.staging_completion.result

        def finish() -> float:
            response.upload_completion.result()
            return ended[0] if ended else time.perf_counter()

        return finish

    return begin


def own(training: Training, *, device_snapshot: bool = True, keeps_gradients: bool = False) -> Begin:
    state = TrainingState({"model": training.model, "optimizer": training.optimizer})
    state.keeps_gradients = keeps_gradients
    policy = CheckpointPolicy(every_seconds=None, device_snapshot=device_snapshot)
    savers: list[Saver] = []
    spent = dict.fromkeys(("capture", "capture_cpu", "capture_gc", "copy", "copy_cpu", "copy_gc"), 0.0)
    """Seconds of the last save in the training's thread: to take the state by reference, and to launch its copy. Of
    each, what the thread used the CPU, and what python took to collect garbage."""

    def begin(path: Path) -> Callable[[], float | None]:
        if not savers:
            store = CheckpointStore(path / "own", "bench")
            savers.append(Saver(store, state, policy, attempt=1))
            state.take = _timed(state.take, spent, "capture")
            savers[0]._snapshotter.take = _timed(savers[0]._snapshotter.take, spent, "copy")
        saver = savers[0]
        state.begin_step()
        began = time.perf_counter()
        saver.begin(len(saver.records) + 1, None, {})

        def finish() -> float:
            saver._finish(is_hopeless=False)
            record = saver.records[-1]
            if record.failures or record.checkpoint is None:
                raise RuntimeError(f"the save failed: {record.failures}")
            return began + record.blocked_seconds + record.written_seconds

        finish.spent = spent
        return finish

    return begin


def _timed(call: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    collecting = [0.0, 0.0]
    """Since when, and how long in all."""

    def note(phase: str, found: dict[str, Any]) -> None:
        if phase == "start":
            collecting[0] = time.perf_counter()
        else:
            collecting[1] += time.perf_counter() - collecting[0]

    def timed(*given: Any) -> Any:
        collecting[1] = 0.0
        gc.callbacks.append(note)
        began, cpu = time.perf_counter(), time.thread_time()
        try:
            return call(*given)
        finally:
            spent[name] = time.perf_counter() - began
            spent[f"{name}_cpu"] = time.thread_time() - cpu
            spent[f"{name}_gc"] = collecting[1]
            gc.callbacks.remove(note)

    return timed


def measure(training: Training, begin: Begin, path: Path, *, holds_gradients: bool) -> dict[str, float]:
    """One save between two times ten steps. Seconds; `blocked` ends when the GPU could go on with the next step."""
    training.holds_gradients = holds_gradients
    training.run(1)
    before = training.run(STEPS)
    began = time.perf_counter()
    finish = begin(path)
    returned = time.perf_counter() - began
    spent = dict(getattr(finish, "spent", {}))
    training.wait()
    blocked = time.perf_counter() - began
    after = training.run(STEPS)
    ended = finish()
    training.before_update = None
    return {
        **spent,
        "returned": returned,
        "blocked": blocked,
        "durable": returned if ended is None else ended - began,
        "slower_percent": 100 * (after / before - 1),
        "step": before / STEPS,
        "bytes": float(sum(file.stat().st_size for file in path.rglob("*") if file.is_file())),
    }


def rounds(training: Training, ways: dict[str, Begin], count: int, scratch: Path) -> dict[str, list[dict[str, float]]]:
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    failed: set[str] = set()
    for number in range(count + 1):
        for name, begin in ways.items():
            if name in failed:
                continue
            path = scratch / "one"
            path.mkdir()
            os.sync()
            try:
                taken[name].append(measure(training, begin, path, holds_gradients="gradients" in name))
                print(f"{number} {name}: {_shown(taken[name][-1])}", file=sys.stderr, flush=True)
            except Exception:  # of others' code; the other ways are still wanted
                print(f"{number} {name} failed:", file=sys.stderr)
                traceback.print_exc()
                failed.add(name)
            shutil.rmtree(path)
    return {name: saves for name, saves in taken.items() if name not in failed}


def summarise(taken: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The first save of each way makes its buffers and is reported apart."""
    return {
        name: {
            "first": saves[0],
            "median": {key: median(save[key] for save in saves[1:]) for key in saves[0]},
            "worst_blocked": max(save["blocked"] for save in saves[1:]),
            "saves": saves[1:],
        }
        for name, saves in taken.items()
    }


def _shown(save: dict[str, float]) -> str:
    spent = "".join(
        f" {name} {save[name] * 1e3:,.1f} (CPU {save[f'{name}_cpu'] * 1e3:,.1f}, gc {save[f'{name}_gc'] * 1e3:,.1f}),"
        for name in ("capture", "copy")
        if name in save
    )
    return (
        f"blocked {save['blocked'] * 1e3:,.1f} ms,{spent} durable after {save['durable'] * 1e3:,.0f} ms,"
        f" next ten steps {save['slower_percent']:+.1f} %, {save['bytes'] / 1e6:,.0f} MB"
    )


@contextmanager
def _process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # async_save wants one
    try:
        yield
    finally:
        dist.destroy_process_group()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="GPT-2 of 124 M parameters on the first CUDA device")
    parser.add_argument("--large", action="store_true", help="774 M parameters")
    parser.add_argument("--only", default="", help="ways whose names contain one of these, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), help="where to save; default: %(default)s")
    parser.add_argument("--output", type=Path, help="write the figures there as JSON")
    options = parser.parse_args()
    training = Training(on_gpu=options.gpu, is_large=options.large)
    training.run(3)
    ways = {
        "torch.save": torch_save(training, is_durable=False),
        "torch.save + fsync": torch_save(training, is_durable=True),
        "DCP save": dcp_save(training),
        "DCP async_save": dcp_async_save(training),
        "trainhooks": own(training),
        "trainhooks, gradients kept": own(training, keeps_gradients=True),
    }
    if options.gpu:
        ways["DCP async_save, best stager"] = dcp_staged_save(training)
        ways["trainhooks, straight to the host"] = own(training, device_snapshot=False)
    ways = {name: way for name, way in ways.items() if any(part in name for part in options.only.split(","))}
    with _process_group(), tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        summary = summarise(rounds(training, ways, options.rounds, Path(scratch)))
    size = training.size_bytes()
    print(f"{size / 1e6:,.0f} MB, median of {options.rounds}, first save of each in brackets")
    for name, each in summary.items():
        print(f"  {name:34} {_shown(each['median'])} (first: {each['first']['blocked'] * 1e3:,.0f} ms)")
    members = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/checkpoints.py", *sys.argv[1:]]),
        "commit": _git("rev-parse", "HEAD"),
        "is_dirty": bool(_git("status", "--porcelain", "--", "trainhooks")),
        "machine": {
            "device": torch.cuda.get_device_name() if options.gpu else None,
            "cores": os.cpu_count(),
            "system": platform.system(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "state_bytes": size,
        "ways": summary,
    }
    if options.output:
        options.output.write_text(json.dumps(members, indent=1) + "\n", encoding="utf-8")
    return 0


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
