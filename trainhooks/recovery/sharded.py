"""Checkpoints that several processes wrote, by DeepSpeed or torch, recognised by name.

Nothing in them is executed: torch's `.metadata` is a pickle and is never read, and DeepSpeed's files are read with
`weights_only=True`. For a checkpoint that safe reading cannot merge, the error names the converter of its library.

Layouts: DeepSpeed's `save_checkpoint` (deepspeed.readthedocs.io/en/latest/model-checkpointing.html, read 2026-11-30);
FSDP's sharded state in DCP's layout (docs.pytorch.org/docs/stable/distributed.checkpoint.html, read 2026-11-30).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainhooks.errors import CheckpointInvalid, TrainhooksError

if TYPE_CHECKING:
    from torch import Tensor

_STEP = re.compile(r"global_step(\d+)")
_FSDP = re.compile(r"pytorch_model_fsdp_\d+")


def tagged(root: Path) -> list[Path]:
    """Return the `global_stepN` folders of DeepSpeed in a folder, by number."""
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


def read(path: Path) -> "Mapping[str, Tensor] | None":
    """Read the weights of a folder; None if it is not one of these.

    Raises:
        CheckpointInvalid: they are spread over processes; the hint names the converter.
    """
    if states := [path] if any(path.glob("*_model_states.pt")) else tagged(path):
        return _of_deepspeed(path, states[-1])
    if any(path.glob("*.distcp")):
        raise _in_parts(path, path)
    if parts := [each for each in distributed(path) if _FSDP.fullmatch(each.name) or each != path]:
        raise _in_parts(path, parts[0])
    return None


def _of_deepspeed(path: Path, tag: Path) -> "Mapping[str, Tensor]":
    """Read the module from DeepSpeed's states if one file has all of it: not with ZeRO 3 or model parallelism."""
    from torch import Tensor  # only weights need torch: rows of a run are read without it

    from trainhooks.pytorch.checkpoint import torch_file

    root = path if tag == path else tag.parent
    root = root.parent if _STEP.fullmatch(root.name) else root
    files = sorted(tag.glob("*mp_rank_*_model_states.pt"))
    failure = CheckpointInvalid(
        f"The weights in {tag.name} are spread over the files of several processes (DeepSpeed).",
        hint=f"Merge them once with DeepSpeed's own script: python {root / 'zero_to_fp32.py'} {root} OUTPUT.",
    )
    if [file.name for file in files] != ["mp_rank_00_model_states.pt"]:
        raise failure
    try:
        members: Any = torch_file.read(files[0])
    except TrainhooksError as error:
        raise CheckpointInvalid(f"{error.message} DeepSpeed wrote it.", hint=failure.hint) from error
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
        hint="If you trust its writer, merge them once with torch's own converter:"
        f" python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} OUTPUT.pt.",
    )
