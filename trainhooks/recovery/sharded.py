"""Checkpoints that several processes wrote, of DeepSpeed and of torch: what they are, by name.

Nothing in them is executed: torch's `.metadata` is a pickle and is never read, and DeepSpeed's files are read with
`weights_only=True`. What no safe reading puts together is named, with the converter of its own library.

Layouts: DeepSpeed's `save_checkpoint` (deepspeed.readthedocs.io/en/latest/model-checkpointing.html, read 2026-11-30);
FSDP's sharded state in DCP's layout (docs.pytorch.org/docs/stable/distributed.checkpoint.html, read 2026-11-30).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trainhooks.errors import CheckpointInvalid, TrainhooksError
from trainhooks.pytorch.checkpoint import torch_file

_STEP = re.compile(r"global_step(\d+)")
_FSDP = re.compile(r"pytorch_model_fsdp_\d+")


def tagged(root: Path) -> list[Path]:
    """Return the `global_stepN` of a folder that DeepSpeed wrote to, by number."""
    if not root.is_dir():
        return []
    found = [(int(named[1]), each) for each in root.iterdir() if (named := _STEP.fullmatch(each.name))]
    return [each for _, each in sorted(found) if any(each.glob("*_states.pt"))]


def latest(root: Path) -> str | None:
    """Return what DeepSpeed's file `latest` names."""
    try:
        return (root / "latest").read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def distributed(root: Path) -> list[Path]:
    """Return the folders in torch's distributed layout at or directly below a folder."""
    if not root.is_dir():
        return []
    return [each for each in (root, *sorted(root.iterdir())) if each.is_dir() and any(each.glob("*.distcp"))]


def read(path: Path) -> Mapping[str, Tensor] | None:
    """Read the weights of a folder; None: it is none of these.

    Raises:
        CheckpointInvalid: they are spread over processes; says what puts them together.
    """
    if states := [path] if any(path.glob("*_model_states.pt")) else tagged(path):
        return _of_deepspeed(path, states[-1])
    if any(path.glob("*.distcp")):
        raise _in_parts(path, path)
    if parts := [each for each in distributed(path) if _FSDP.fullmatch(each.name) or each != path]:
        raise _in_parts(path, parts[0])
    return None


def _of_deepspeed(path: Path, tag: Path) -> Mapping[str, Tensor]:
    """Read the module in DeepSpeed's states where one file has all of it: not under ZeRO 3 or model parallelism."""
    root = path if tag == path else tag.parent
    root = root.parent if _STEP.fullmatch(root.name) else root
    files = sorted(tag.glob("*mp_rank_*_model_states.pt"))
    failure = CheckpointInvalid(
        f"The weights in {tag.name} are spread over the files of several processes (DeepSpeed).",
        hint=f"Put them together with DeepSpeed's own script, once: python {root / 'zero_to_fp32.py'} {root} OUTPUT.",
    )
    if [file.name for file in files] != ["mp_rank_00_model_states.pt"]:
        raise failure
    try:
        members: Any = torch_file.read(files[0])
    except TrainhooksError as error:
        raise CheckpointInvalid(f"{error.message} It is DeepSpeed's.", hint=failure.hint) from error
    module = members.get("module") if isinstance(members, Mapping) else None
    if not isinstance(module, Mapping) or not all(
        isinstance(each, Tensor) and each.numel() for each in module.values()
    ):
        raise failure
    return module


def _in_parts(path: Path, folder: Path) -> CheckpointInvalid:
    return CheckpointInvalid(
        f"The weights in {path.name} are spread over the files of several processes (FSDP, torch's distributed"
        " checkpoint), whose table is a pickle and is not read.",
        hint="If you trust its writer, put them together with torch's own converter, once:"
        f" python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} OUTPUT.pt.",
    )
