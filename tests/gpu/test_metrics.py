"""Metrics of a training on a GPU: nothing waits, and every number is the one of its step.

Every test runs under `torch.cuda.set_sync_debug_mode("error")`, in which a call that waits for the device raises.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainhooks import ProgressTracker, calculate_metrics_from_step, read_metrics

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:Synchronization debug mode")]

STEPS = 400


@pytest.fixture(autouse=True)
def waiting_raises(wait_mode: Callable[[str], None]) -> None:
    torch.cuda.init()
    torch.zeros(1, device="cuda").item()  # whatever waits at the start has waited
    wait_mode("error")


def rows_of(out: Path) -> list[dict[str, Any]]:
    torch.cuda.set_sync_debug_mode("default")
    return read_metrics(out)


def test_the_mode_raises_on_what_waits() -> None:
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.zeros(1, device="cuda").item()


def test_new_tensors_each_step(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, STEPS)
    base = torch.arange(STEPS, device="cuda", dtype=torch.float32)
    for step in range(STEPS):
        loss = base[step] * 2
        tracker.update_metrics(step, loss=loss, loss_components={"half": loss / 2}, grad_norm=loss.to(torch.bfloat16))
    tracker.close()
    rows = rows_of(tmp_path)
    assert [row["loss"] for row in rows] == [step * 2.0 for step in range(STEPS)]
    assert [row["loss_components"]["half"] for row in rows] == [float(step) for step in range(STEPS)]
    assert rows[100]["grad_norm"] == torch.tensor(200.0).bfloat16().item()


def test_one_tensor_written_in_place(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, STEPS)
    running = torch.zeros((), device="cuda")
    for step in range(STEPS):
        running.add_(1.0)
        tracker.update_metrics(step, loss=running)
    tracker.close()
    assert [row["loss"] for row in rows_of(tmp_path)] == [step + 1.0 for step in range(STEPS)]


def test_changed_after_its_row(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, STEPS)
    base = torch.arange(STEPS, device="cuda", dtype=torch.float32)
    for step in range(STEPS):
        loss = base[step] + 0.0
        tracker.update_metrics(step, loss=loss)
        loss.mul_(1_000)
    tracker.close()
    found = [row["loss"] for row in rows_of(tmp_path)]
    assert all(value in (float(step), None) for step, value in enumerate(found))
    assert found.count(None) <= 1


def test_a_captured_graph_that_writes_one_memory(tmp_path: Path) -> None:
    torch.cuda.set_sync_debug_mode("default")  # capturing waits, replaying does not
    counter, loss = torch.zeros((), device="cuda"), torch.zeros((), device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        counter.add_(1.0)
        loss.copy_(counter * 3)
    counter.zero_()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    tracker = ProgressTracker({}, tmp_path, STEPS)
    for step in range(STEPS):
        graph.replay()
        tracker.update_metrics(step, loss=loss)
    tracker.close()
    assert [row["loss"] for row in rows_of(tmp_path)] == [3.0 * (step + 1) for step in range(STEPS)]


def test_a_stream_of_its_own(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, STEPS)
    with torch.cuda.stream(torch.cuda.Stream()):
        base = torch.arange(STEPS, device="cuda", dtype=torch.float32)
        for step in range(STEPS):
            tracker.update_metrics(step, loss=base[step] * 2)
        tracker.flush()
    tracker.close()
    assert [row["loss"] for row in rows_of(tmp_path)] == [step * 2.0 for step in range(STEPS)]


def test_nan_and_infinity(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, STEPS)
    for step in range(20):
        zero = torch.zeros((), device="cuda")
        tracker.update_metrics(step, loss=zero / zero, grad_norm=1 / zero)
    tracker.close()
    for row in rows_of(tmp_path):
        assert row["loss"] != row["loss"]
        assert row["grad_norm"] == float("inf")


def test_a_training_loop_never_waits(tmp_path: Path, wait_mode: Callable[[str], None]) -> None:
    """The guide's loop, whole; its window moves several times."""
    wait_mode("default")  # moving a model to the device waits
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)).cuda()
    wait_mode("error")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100)
    tracker = ProgressTracker({}, tmp_path, STEPS)
    kept = []
    for step in range(STEPS):
        x = torch.randn(32, 64, device="cuda")
        loss = model(x).square().mean()
        loss.backward()
        norm = nn.utils.get_total_norm([each.grad for each in model.parameters() if each.grad is not None])
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        value, parts, rate = calculate_metrics_from_step(loss, {"mse": loss}, scheduler)
        kept.append(value)
        tracker.update_metrics(step, loss=value, loss_components=parts, learning_rate=rate, grad_norm=norm)
    tracker.close()
    rows = rows_of(tmp_path)
    assert [row["loss"] for row in rows] == torch.stack(kept).tolist()
    assert [row["loss_components"]["mse"] for row in rows] == [row["loss"] for row in rows]
    assert all(row["grad_norm"] > 0 for row in rows)


def test_summary_and_the_recorders_thread_wait_for_no_device(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, STEPS)
    base = torch.arange(STEPS, device="cuda", dtype=torch.float32)
    torch.cuda._sleep(2_000_000_000)  # about a second of work is queued before the numbers
    begun = time.monotonic()
    for step in range(20):
        tracker.update_metrics(step, loss=base[step] * 2)
    tracker.summary()
    assert time.monotonic() - begun < 0.5
    tracker.close()
    assert [row["loss"] for row in rows_of(tmp_path)] == [step * 2.0 for step in range(20)]


def test_what_a_call_costs(tmp_path: Path) -> None:
    """Reported, not judged: microseconds on the training's thread beside `.item()`."""
    figures = {}
    for name, count in (("one tensor", 1), ("ten tensors", 10)):
        tracker = ProgressTracker({}, tmp_path / name, 4_000)
        base = torch.arange(2_000, device="cuda", dtype=torch.float32)
        took = []
        for step in range(2_000):
            members = {f"m{at}": base[step] * at for at in range(count)}
            begun = time.perf_counter_ns()
            tracker.update_metrics(step, **members)
            took.append((time.perf_counter_ns() - begun) / 1e3)
        tracker.close()
        took.sort()
        figures[name] = (statistics.median(took), took[int(len(took) * 0.99)], took[-1])
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}: median, p99, longest in us: {figures}")
