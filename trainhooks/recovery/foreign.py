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
from trainhooks.recovery.found import Found, SavedModel
from trainhooks.recovery.place import TORCH_SUFFIXES, changed_at

_NUMBER = re.compile(r"(step|epoch|checkpoint|iter)[-_=]?(\d+)")
_HISTORY = ("history", "metrics_history", "metrics", "log_history", "training_history", "results")
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
        best = state.get("best_model_checkpoint")
        return Found(
            run_id=_run_id(root),
            run_name=root.name,
            rows=rows,
            checkpoints=tuple(
                SavedModel(
                    path=path,
                    step=_step(path),
                    metrics={"val/loss": state["best_metric"]}
                    if best and Path(best).name == path.name and _is_loss(state)
                    else {},
                    tags=("best",) if best and Path(best).name == path.name else (),
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


def _is_loss(state: Mapping[str, Any]) -> bool:
    best = state.get("best_metric")
    return isinstance(best, float) and any(row.get("eval_loss") == best for row in state["log_history"])


def read_lightning(root: Path) -> Found:
    """Read `metrics.csv` and what lies in `checkpoints/`.

    Raises:
        TrainhooksError: the table is not readable.
    """
    try:
        rows = pd.read_csv(root / "metrics.csv", on_bad_lines="skip")
    except (OSError, ValueError) as error:
        raise _unreadable(root, [f"metrics.csv cannot be read ({error})."]) from error
    config: dict[str, Any] = {}
    gaps = []
    try:
        for line in (root / "hparams.yaml").read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon and name.isidentifier() and value.strip():
                config[name] = _scalar(value.strip())
    except FileNotFoundError:
        pass
    except OSError as error:
        gaps.append(f"hparams.yaml cannot be read ({error.strerror}).")
    return Found(
        run_id=_run_id(root),
        run_name=root.resolve().name,
        rows=rows,
        checkpoints=tuple(_files(root / "checkpoints")) or tuple(_files(root)),
        config=config,
        gaps=tuple(gaps),
    )


def read_torch(root: Path) -> Found:
    """Read metrics inside the checkpoints of a folder, or in a table beside them.

    Raises:
        TrainhooksError: no checkpoint is readable without executing what is in it.
    """
    rows = _table_beside(root)
    config: dict[str, Any] = {}
    gaps: list[str] = []
    saved: list[SavedModel] = []
    history: list[Mapping[str, Any]] = []
    try:
        from trainhooks.pytorch import torch_file  # torch is loaded only where torch files are read
    except ImportError as error:
        if error.name != "torch":
            raise
        gaps.append("torch is not installed: what is inside the checkpoints is not read.")
        saved += _files(root)
    for file in _files(root) if not gaps else ():
        try:
            members = torch_file.read(file.path, is_mapped=True)
        except TrainhooksError as error:
            gaps.append(str(error))
            continue
        if not isinstance(members, Mapping):
            saved.append(file)
            continue
        epoch, step = _number(members.get("epoch")), _number(members.get("step", members.get("global_step")))
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
        saved.append(
            SavedModel(
                path=file.path, step=step, epoch=epoch, metrics=own, tags=("best",) if "best" in file.path.stem else ()
            )
        )
    if not saved:
        raise _unreadable(root, gaps)
    if rows is None:
        rows = pd.DataFrame.from_records(history)
    return Found(
        run_id=_run_id(root),
        run_name=_name(root),
        rows=rows,
        checkpoints=tuple(saved),
        config=config,
        gaps=tuple(gaps),
    )


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
                    return pd.read_csv(file, on_bad_lines="skip")
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


def _files(root: Path) -> Iterable[SavedModel]:
    if not root.is_dir():
        return
    for path in sorted((file for file in root.iterdir() if file.suffix in TORCH_SUFFIXES), key=_order):
        numbers = {kind: int(number) for kind, number in _NUMBER.findall(path.stem)}
        yield SavedModel(
            path=path,
            step=numbers.get("step", numbers.get("iter", numbers.get("checkpoint"))),
            epoch=numbers.get("epoch"),
            tags=("best",) if "best" in path.stem else (),
        )


def _order(path: Path) -> tuple[int, float]:
    return (_step(path), changed_at(path))


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
    """Return an id of this folder and no other: many runs are called `version_0` or `checkpoints`."""
    place = root.resolve()
    return f"{_name(root)}-{hashlib.sha256(str(place).encode(errors='surrogateescape')).hexdigest()[:8]}"


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip("'\"")


def _unreadable(root: Path, gaps: Iterable[str]) -> TrainhooksError:
    return TrainhooksError(
        f"{root} holds nothing that can be read: " + (" ".join(gaps) or "it is empty."),
        hint="Name the folder that holds `progress/`, `trainer_state.json`, `metrics.csv` or checkpoints.",
        code="run_unreadable",
    )
