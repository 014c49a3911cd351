"""Arguments of the wrong type or out of range: each public function says it in one sentence, with what to write."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trainhooks import (
    Best,
    CheckpointPolicy,
    calculate_metrics_from_step,
    newest_good_checkpoint,
    peek,
    read_lineage,
    read_metrics,
    retry_api_call,
    samples_per_second,
    setup_progress_tracking,
    tokens_per_second,
    training_progress_context,
)
from trainhooks.errors import TrainhooksError
from trainhooks.recovery import recover

MODEL = nn.Linear(2, 1)
DATA = [torch.ones(2)] * 8
NAN = float("nan")


class Failing:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


LOADER: list[dict[str, Any]] = [
    *({"batch_size": value} for value in ("4", 0, -1, 2.5, True, [2], NAN, Failing())),
    *({"num_workers": value} for value in ("2", -1, 1.5, None)),
    *({"num_workers": 1, "prefetch_factor": value} for value in ("2", 0, -1)),
    *({"num_workers": 1, "multiprocessing_context": value} for value in ("nope", 5)),
    *({"timeout": value} for value in ("5", -1)),
    *({name: 5} for name in ("collate_fn", "worker_init_fn", "sampler", "batch_sampler", "name")),
    *({name: "yes"} for name in ("shuffle", "drop_last", "pin_memory", "persistent_workers")),
    *({"sampler": value} for value in (iter([1, 2]), (each for each in [1]))),
    *({"rank": value} for value in (5, -1, "0")),
    *({"world": value} for value in (0, "2")),
    {"num_worker": 2},
    {"workers": 2},
    {"seed": 5},
    {"dataset": DATA},
    {"prefetch_factor": 2},
    {"persistent_workers": True},
    {"replays": True},
    {"batch_sampler": [1, 2]},
    {"name": ""},
    {"evaluates": True, "batch_size": "4"},
    {"generator": torch.Generator()},
]


@pytest.mark.parametrize("options", LOADER, ids=lambda options: str({k: type(v).__name__ for k, v in options.items()}))
def test_an_option_of_loader_is_reported(tmp_path: Path, options: dict[str, Any]) -> None:
    with (
        training_progress_context({}, tmp_path, 2, database=False) as progress,
        pytest.raises(TrainhooksError, match="Hint: "),
    ):
        next(iter(progress.loader(DATA, **options)))


def test_a_near_name_of_an_option_is_reported(tmp_path: Path) -> None:
    with (
        training_progress_context({}, tmp_path, 2, database=False) as progress,
        pytest.raises(TrainhooksError, match=r"no option 'num_worker'. Hint: Do you mean 'num_workers'"),
    ):
        progress.loader(DATA, num_worker=2)


SOURCES = [b"bytes", {1, 2}, frozenset({1}), MODEL, list, zip(DATA, DATA, strict=True), iter(DATA), lambda: DATA, 5, []]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_a_source_without_an_order_of_samples_is_reported(tmp_path: Path, source: Any) -> None:
    with (
        training_progress_context({}, tmp_path, 2, database=False) as progress,
        pytest.raises(TrainhooksError, match="Hint: "),
    ):
        progress.loader(source)


OPENED: list[dict[str, Any]] = [
    {"state": {}},
    *({"state": {"model": MODEL}, "checkpoint_every_steps": value} for value in ("5", 0, -2, 2.5, True)),
    *(
        {"state": {"model": MODEL}, "restore": value}
        for value in ("live", 5, ["a"], {"model": 5}, {"requires_grad": 5})
    ),
    {"restore": "checkpoint"},
    *({"state": {"model": MODEL}, "grace_seconds": value} for value in ("5", -5, NAN, True)),
    *({"drift": value} for value in ({"a": "nope"}, {"a": 5}, {5: "warn"}, ["a"])),
    *({"database": value} for value in (5, b"x", [], "")),
    {"state": {"model": None}},
    {"state": {"model": MODEL, "rest": MODEL.parameters()}},
]


@pytest.mark.parametrize("options", OPENED, ids=str)
def test_an_option_of_opening_is_reported(tmp_path: Path, options: dict[str, Any]) -> None:
    with (
        pytest.raises(TrainhooksError, match="Hint: "),
        training_progress_context({}, tmp_path, 4, **{"database": False, **options}),
    ):
        pass


@pytest.mark.parametrize("output_dir", [None, 5, "", b"x", [], "a\0b"], ids=repr)
def test_an_output_directory_that_is_none_is_reported(output_dir: Any) -> None:
    with pytest.raises(TrainhooksError, match=r"output_dir is .* Hint: "):
        setup_progress_tracking({}, output_dir, 4, database=False)


def test_an_output_directory_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainhooksError, match="Hint: "):
        setup_progress_tracking({}, tmp_path / "file", 4, database=False)


@pytest.mark.parametrize("total", ["4", 0, -1, 2.5, None, float("inf"), True, [4]], ids=repr)
def test_a_number_of_steps_that_is_none_is_reported(tmp_path: Path, total: Any) -> None:
    with pytest.raises(TrainhooksError, match=r"total_steps is .* Hint: "):
        setup_progress_tracking({}, tmp_path, total, database=False)


POLICIES: list[dict[str, Any]] = [
    *({name: value} for name in ("every_steps", "keep_last", "keep_every_steps") for value in ("5", 2.5, 0, -1)),
    *({name: value} for name in ("every_seconds", "patience_seconds", "max_overhead") for value in ("x", NAN, 0, -1)),
    *({"keep_best": value} for value in ("loss", Best, 5)),
    *({"keep_tags": value} for value in ("paper", 5, (5,))),
    *({name: "no"} for name in ("asynchronous", "device_snapshot", "gradients")),
    {"patience_seconds": None},
    {"max_overhead": 2},
]


@pytest.mark.parametrize("options", POLICIES, ids=str)
def test_a_policy_that_cannot_be_used_is_reported(options: dict[str, Any]) -> None:
    with pytest.raises(TrainhooksError, match=f"{next(iter(options))} is .* Hint: "):
        CheckpointPolicy(**options)


@pytest.mark.parametrize(
    "options", [{"metric": 5}, {"metric": ""}, {"metric": None}, {"count": "2"}, {"count": 0}, {"mode": 5}], ids=str
)
def test_a_best_that_cannot_be_used_is_reported(options: dict[str, Any]) -> None:
    with pytest.raises(TrainhooksError, match="Hint: "):
        Best(**{"metric": "loss", **options})


Call = Callable[[Any], Any]
CALLS: dict[str, Call] = {
    **{
        f"update_metrics {value!r}": functools.partial(
            lambda progress, value: progress.update_metrics(value), value=value
        )
        for value in (None, -1, 2.5, NAN, [1], "x", torch.tensor(1.5), torch.ones(2))
    },
    **{
        f"resume_at {value!r}": functools.partial(lambda progress, value: progress.resume_at(value), value=value)
        for value in ("5", -1, None, 2.5, True)
    },
    **{
        f"finish {value!r}": functools.partial(lambda progress, value: progress.finish(value), value=value)
        for value in (5, None, ["done"])
    },
    "shape": lambda progress: progress.update_metrics(0, loss=torch.ones(2)),
    "save tags": lambda progress: progress.save_checkpoint(tags=5),
    "save metrics": lambda progress: progress.save_checkpoint(metrics=[1]),
    "save metric": lambda progress: progress.save_checkpoint(metrics={"loss": "x"}),
    "save tensor": lambda progress: progress.save_checkpoint(metrics={"loss": torch.ones(2)}),
    "record path": lambda progress: progress.record_checkpoint(None),
    "record step": lambda progress: progress.record_checkpoint("x", step=-1),
    "record tags": lambda progress: progress.record_checkpoint("x", tags=[5]),
    "record metrics": lambda progress: progress.record_checkpoint("x", metrics={"loss": None}),
    "record position": lambda progress: progress.record_checkpoint("x", position=object()),
    "steps": lambda progress: next(progress.steps(5)),
    "no loader": lambda progress: next(progress.steps()),
    "lengths": lambda progress: progress.record_inputs(lengths=5),
    "length": lambda progress: progress.record_inputs(lengths=["a"]),
    "tokens": lambda progress: progress.record_inputs(tokens="x"),
    "logprobs": lambda progress: progress.record_inputs(logprobs=[["a"]]),
    "ids": lambda progress: progress.record_lineage(5),
    "keys": lambda progress: progress.record_lineage([1], [["x"]]),
    "prompt": lambda progress: progress.record_api_response([{"role": "user"}], "r", model="m"),
    "response": lambda progress: progress.record_api_response("p", None, model="m"),
    "model": lambda progress: progress.record_api_response("p", "r", model=5),
    "ordinal": lambda progress: progress.find_api_response("p", model="m", ordinal=-1),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_cannot_be_served_is_reported(tmp_path: Path, name: str) -> None:
    with (
        training_progress_context({}, tmp_path, 4, state={"model": MODEL}, database=False) as progress,
        pytest.raises(TrainhooksError, match="Hint: "),
    ):
        CALLS[name](progress)


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3), 3.0, "3"], ids=repr)
def test_a_step_may_be_any_whole_number(tmp_path: Path, value: Any) -> None:
    with training_progress_context({}, tmp_path, 4, database=False) as progress:
        progress.update_metrics(value, loss=1.0)
    assert [row["step"] for row in read_metrics(tmp_path)] == [3]


ODD = [object(), b"x", 1j, {1}, Path("x"), 10**400, np.datetime64("2020"), {1: 2}, range(3), MODEL, type, None]


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_a_metric_of_an_odd_type_costs_no_other(tmp_path: Path, value: Any) -> None:
    with training_progress_context({}, tmp_path, 4, database=False) as progress:
        progress.update_metrics(0, loss=1.0)
        progress.update_metrics(1, odd=value)
        progress.update_metrics(2, loss=3.0)
    rows = read_metrics(tmp_path)
    assert [(row["step"], row.get("loss")) for row in rows if row["step"] != 1] == [(0, 1.0), (2, 3.0)]


@pytest.mark.parametrize("read", [read_metrics, read_lineage, peek, newest_good_checkpoint])
@pytest.mark.parametrize("value", [None, 5, b"x"], ids=repr)
def test_a_path_that_is_none_is_reported(read: Any, value: Any) -> None:
    with pytest.raises(TrainhooksError, match="Hint: "):
        read(value)


OUTSIDE: dict[str, Call] = {
    "recover": recover,
    "retry progress": retry_api_call,
    "retry deadline": lambda value: retry_api_call(deadline_seconds=value),
    "samples": lambda value: samples_per_second(value, 1.0),
    "seconds": lambda value: samples_per_second(4, value),
    "tokens": lambda value: tokens_per_second(4, value, 1.0),
}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("value", [[1], object(), b"x"], ids=lambda value: type(value).__name__)
def test_a_function_beside_the_session_says_it_too(name: str, value: Any) -> None:
    with pytest.raises(TrainhooksError, match="Hint: "):
        OUTSIDE[name](value)


def test_a_decorator_without_its_brackets_is_said() -> None:
    with pytest.raises(TrainhooksError, match=r"Write @retry_api_call\(\) with brackets"):
        retry_api_call(lambda prompt: prompt)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"loss_dict": [1]}, {"scheduler": 5}], ids=str)
def test_what_no_step_measures_is_reported(options: dict[str, Any]) -> None:
    with pytest.raises(TrainhooksError, match="Hint: "):
        calculate_metrics_from_step(1.0, **options)
