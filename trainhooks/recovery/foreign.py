"""Runs that others wrote: Hugging Face Trainer, Lightning, and plain folders of torch checkpoints.

Torch files are read with `weights_only=True`: nothing in them is executed.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from trainhooks.errors import TrainhooksError
from trainhooks.recovery import sharded
from trainhooks.recovery.found import Found, SavedModel
from trainhooks.recovery.naming import in_order, numbers_in, torch_files
from trainhooks.recovery.rows_of_csv import read_csv

_HISTORY = ("history", "metrics_history", "metrics", "log_history", "training_history", "results")
_STEPS = ("global_step", "step", "steps", "iteration", "iter", "iter_num", "it", "n_iter", "num_updates", "num_steps")
"""Where training scripts keep the count of finished steps in a checkpoint."""
_EPOCHS = ("epoch", "epochs", "current_epoch", "epoch_num", "last_epoch")
_CONFIG = ("config", "training_config", "hyper_parameters", "args", "hparams")


def read_hugging_face(root: Path) -> Found:
    """Read `trainer_state.json` of the newest checkpoint that has a readable one.

    Raises:
        TrainhooksError: none is readable.
    """
    gaps = []
    for file in sorted(
        [*root.glob("trainer_state.json"), *root.glob("checkpoint-*/trainer_state.json")], key=_step, reverse=True
    ):
        try:
            state = json.loads(file.read_bytes())
            rows = pd.DataFrame.from_records(state["log_history"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            gaps.append(f"{file.relative_to(root)} cannot be read ({error}).")
            continue
        best = _name_of(state.get("best_model_checkpoint"))
        return Found(
            run_id=_run_id(root),
            run_name=root.name,
            rows=rows,
            counts_finished=True,
            checkpoints=tuple(
                SavedModel(
                    path=path,
                    step=_step(path),
                    metrics={"val/loss": state["best_metric"]} if best == path.name and _is_loss(state) else {},
                    tags=("best",) if best == path.name else (),
                )
                for path in sorted(root.glob("checkpoint-*"), key=_step)
            ),
            config={
                name: state[name] for name in ("num_train_epochs", "max_steps", "train_batch_size") if name in state
            },
            total_steps=state.get("max_steps") or None,
            gaps=tuple(gaps),
        )
    raise _unreadable(root, gaps)


def _name_of(path: Any) -> str | None:
    """Return the last part of a path written on any system, such as `C:\\out\\checkpoint-4`."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] if isinstance(path, str) and path else None


def _is_loss(state: Mapping[str, Any]) -> bool:
    best = state.get("best_metric")
    return isinstance(best, float) and any(row.get("eval_loss") == best for row in state["log_history"])


def read_lightning(root: Path) -> Found:
    """Read `metrics.csv` and what lies in `checkpoints/`.

    Raises:
        TrainhooksError: the table is not readable.
    """
    try:
        rows, gaps = read_csv(root / "metrics.csv")
    except (OSError, ValueError) as error:
        raise _unreadable(root, [f"metrics.csv cannot be read ({error})."]) from error
    config: dict[str, Any] = {}
    try:
        for line in (root / "hparams.yaml").read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon and name.isidentifier() and value.strip():
                config[name] = _scalar(value.strip())
    except FileNotFoundError:
        pass
    except OSError as error:
        gaps.append(f"hparams.yaml cannot be read ({error.strerror}).")
    saved, doubt = in_order(torch_files(root / "checkpoints") or torch_files(root))
    return Found(
        run_id=_run_id(root),
        run_name=root.resolve().name,
        rows=rows,
        checkpoints=tuple(saved),
        config=config,
        gaps=(*gaps, *([doubt] if doubt else [])),
    )


def read_torch(root: Path) -> Found:
    """Read metrics from the checkpoints of a folder, or from a table beside them.

    Raises:
        TrainhooksError: no checkpoint is readable without executing what is in it.
    """
    rows = _table_beside(root)
    config: dict[str, Any] = {}
    gaps: list[str] = []
    saved: list[SavedModel] = []
    history: list[Mapping[str, Any]] = []
    try:
        from trainhooks.pytorch.checkpoint import torch_file
    except ImportError as error:
        if error.name != "torch":
            raise
        gaps.append("torch is not installed: the contents of the checkpoints were not read.")
        saved += torch_files(root)
    for file in torch_files(root) if not gaps else ():
        try:
            members = torch_file.read(file.path, is_mapped=True)
        except TrainhooksError as error:
            gaps.append(str(error))
            continue
        if not isinstance(members, Mapping):
            saved.append(file)
            continue
        epoch, step = _number_under(members, _EPOCHS), _number_under(members, _STEPS)
        epoch = file.epoch if epoch is None else epoch
        step = file.step if step is None else int(step)
        own = {
            name: float(value)
            for name, value in members.items()
            if isinstance(name, str) and isinstance(value, int | float) and not isinstance(value, bool)
        }
        inside = list(_history(members))
        history = inside if len(inside) > len(history) else history
        if not inside and own:
            rows_of_file = {**own, **({"step": step} if step is not None else {})}
            history = [*history, rows_of_file]
        config = config or next((dict(members[name]) for name in _CONFIG if isinstance(members.get(name), Mapping)), {})
        saved.append(SavedModel(path=file.path, step=step, epoch=epoch, metrics=own, tags=file.tags))
    if not saved:
        raise _unreadable(root, gaps)
    is_counted = rows is None  # steps in checkpoints count finished steps; those of a table may do either
    if rows is None:
        rows = pd.DataFrame.from_records(history)
    saved, doubt = in_order(saved)
    if doubt:
        gaps.append(doubt)
    return Found(
        run_id=_run_id(root),
        run_name=_name(root),
        rows=rows,
        counts_finished=is_counted,
        checkpoints=tuple(saved),
        config=config,
        gaps=tuple(gaps),
    )


def read_sharded(root: Path) -> Found:
    """Read the checkpoints of DeepSpeed or torch's distributed checkpoint, and a table beside them."""
    rows, gaps = _table_beside(root), []
    tags = [SavedModel(path=path, step=_step(path)) for path in sharded.tagged(root)]
    parts = [
        SavedModel(path=path, step=numbers.step if numbers.step is not None else numbers.other, epoch=numbers.epoch)
        for path in sharded.distributed(root)
        for numbers in (numbers_in(path.name),)
    ]
    saved, doubt = in_order([*tags, *parts])
    if not saved:
        raise _unreadable(root, ["the names of its parts are unknown."])
    named = sharded.latest(root)
    if doubt:
        gaps.append(doubt)
    if tags and named is not None and named != saved[-1].path.name:
        gaps.append(f"DeepSpeed's file `latest` names {named}, and the last by number is {saved[-1].path.name}.")
    return Found(
        run_id=_run_id(root),
        run_name=_name(root),
        rows=pd.DataFrame() if rows is None else rows,
        checkpoints=tuple(saved),
        gaps=tuple(gaps),
    )


def _number_under(members: Mapping[str, Any], names: Iterable[str]) -> float | None:
    return next((number for name in names if (number := _number(members.get(name))) is not None), None)


def _number(value: Any) -> float | None:
    if hasattr(value, "numel") and value.numel() == 1:
        value = value.item()
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _history(members: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Find rows in a checkpoint: a list of them, or a list of numbers per metric."""
    for name in _HISTORY:
        value = members.get(name)
        if isinstance(value, list) and all(isinstance(row, Mapping) for row in value):
            yield from value
            return
        if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
            length = max(len(column) for column in value.values())
            for at in range(length):
                yield {"epoch": at, **{key: column[at] for key, column in value.items() if at < len(column)}}
            return


def _table_beside(root: Path) -> pd.DataFrame | None:
    for folder in (root, root.parent):
        for name in (
            "metrics.jsonl",
            "metrics.csv",
            "history.csv",
            "metrics.json",
            "history.json",
            "training_history.json",
        ):
            file = folder / name
            if not file.is_file():
                continue
            try:
                if file.suffix == ".csv":
                    return read_csv(file)[0]
                if file.suffix == ".jsonl":
                    return pd.DataFrame.from_records(list(_lines(file)))
                value = json.loads(file.read_bytes())
                return pd.DataFrame(value) if isinstance(value, Mapping) else pd.DataFrame.from_records(value)
            except (OSError, ValueError, TypeError):
                continue
    return None


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _step(path: Path) -> int:
    for part in (path.stem, path.parent.name):
        found = re.search(r"(\d+)$", part) or re.search(r"(\d+)", part)
        if found:
            return int(found[1])
    return -1


def _name(root: Path) -> str:
    resolved = root.resolve()
    return resolved.parent.name if resolved.name in {"checkpoints", "ckpt", "weights"} else resolved.name


def _run_id(root: Path) -> str:
    """Return an id that is unique to this folder: many runs are called `version_0` or `checkpoints`."""
    place = root.resolve()
    return f"{_name(root)}-{hashlib.sha256(str(place).encode(errors='surrogateescape')).hexdigest()[:8]}"


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip("'\"")


def _unreadable(root: Path, gaps: Iterable[str]) -> TrainhooksError:
    return TrainhooksError(
        f"{root} contains nothing readable: " + (" ".join(gaps) or "it is empty."),
        hint="Name the folder that holds `progress/`, `trainer_state.json`, `metrics.csv` or checkpoints.",
        code="run_unreadable",
    )
