"""The tensors of one object in a checkpoint, for torch.distributed.checkpoint: it plans which parts of which files make
up what a rank wants, however many ranks wrote them; nothing here is pickled.

    dcp.load(model.state_dict(), storage_reader=CheckpointReader("run/checkpoints/step-000000400", "model"))

reads into tensors of any layout, in one process or many. It checks no hashes: `trainhooks verify` does, and a session's
own resume.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import (
    STORAGE_TYPES,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from trainhooks.errors import CheckpointInvalid
from trainhooks.pytorch.checkpoint.capture import DTYPES, spelled_out
from trainhooks.pytorch.checkpoint.saved import SHARD, STATE, read_json
from trainhooks.storage import tensors
from trainhooks.storage.verification import read_manifest

_NAMES = {spelled: str(dtype).removeprefix("torch.") for dtype, spelled in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class _Place:
    file: str
    name: str
    raw: str | None = None
    """The dtype of a tensor that lies there as bytes."""


class CheckpointReader(StorageReader):
    """Reads one object's tensors, by the names of its `state_dict()`.

    Args:
        path: a published checkpoint.
        name: the object's in `state=`.
        described: what state.json says of it, if that has been read.
    """

    def __init__(self, path: str | os.PathLike[str], name: str = "model", *, described: Any = None) -> None:
        self.path = Path(path)
        self.name = name
        self._described = described
        self._places: dict[MetadataIndex, _Place] = {}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return what there is: each tensor's dtype, shape, and the parts in which it lies.

        Raises:
            CheckpointInvalid: the checkpoint has no such object.
        """
        described = self._described or read_json(self.path, STATE)["objects"].get(self.name)
        if described is None:
            raise CheckpointInvalid(
                f"{self.path.name} has no object {self.name}.", hint="Name one that was in state=, such as `model`."
            )
        self._places.clear()
        found: dict[str, STORAGE_TYPES] = dict(self._plain(described))
        found |= self._sharded(described)
        for alias, name in described.get("aliases", {}).items():
            entry = found[alias] = found[name]
            assert isinstance(entry, TensorStorageMetadata)
            for chunk in entry.chunks:
                self._places[MetadataIndex(alias, chunk.offsets)] = self._places[MetadataIndex(name, chunk.offsets)]
        return Metadata(state_dict_metadata=found)

    def _plain(self, described: Any) -> Iterator[tuple[str, TensorStorageMetadata]]:
        """What rank 0 wrote whole."""
        file = self.name + tensors.SUFFIX
        if not (self.path / file).exists():
            return
        with safe_open(self.path / file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                is_raw = name in described["raw"]
                if is_raw:
                    dtype, shape = described["raw"][name]
                else:
                    header = opened.get_slice(name)
                    dtype, shape = _NAMES[header.get_dtype()], header.get_shape()
                chunk = ChunkStorageMetadata(torch.Size([0] * len(shape)), torch.Size(shape))
                self._places[MetadataIndex(name, chunk.offsets)] = _Place(file, name, dtype if is_raw else None)
                yield name, _entry(dtype, shape, [chunk])

    def _sharded(self, described: Any) -> Iterable[tuple[str, TensorStorageMetadata]]:
        """What each rank wrote its part of."""
        sharded = described.get("sharded", {})
        if not sharded:
            return []
        chunks: dict[str, list[ChunkStorageMetadata]] = defaultdict(list)
        for rank in range(read_manifest(self.path).world):
            stem = SHARD.format(rank)
            for name, (offsets, sizes) in read_json(self.path, f"{stem}.json")["parts"].get(self.name, {}).items():
                index, dtype = MetadataIndex(name, offsets), sharded[name][0]
                if index not in self._places:  # ranks of another mesh may have the same
                    chunks[name].append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
                    raw = None if dtype in _NAMES.values() else dtype
                    self._places[index] = _Place(f"{stem}.{self.name}{tensors.SUFFIX}", name, raw)
        return [(name, _entry(dtype, shape, chunks[name])) for name, (dtype, shape) in sharded.items()]

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read what the plan asks for, file by file, each part alone."""
        by_file = defaultdict(list)
        for item in plan.items:
            place = self._places[item.storage_index]
            by_file[place.file].append((place, item))
        for file, wanted in by_file.items():
            with safe_open(self.path / file, framework="pt") as opened:
                for place, item in wanted:
                    target = planner.resolve_tensor(item).detach()
                    target.copy_(_part(opened, place, item.storage_offsets, item.lengths))
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def fill(self, targets: dict[str, Tensor]) -> None:
        """Read into tensors, plain or dealt out, by name; each rank for itself."""
        planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        planner.set_up_planner(targets, self.read_metadata(), is_coordinator=True)
        self.read_data(planner.create_local_plan(), planner)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Go to another checkpoint, if one is named."""
        if checkpoint_id is not None:
            self.path = Path(checkpoint_id)
        self._places.clear()

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing is kept open."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan: nothing is to be added."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans: each rank reads for itself."""
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether this can be read here."""
        return Path(checkpoint_id).is_dir()


def _entry(dtype: str, shape: Iterable[int], chunks: list[ChunkStorageMetadata]) -> TensorStorageMetadata:
    return TensorStorageMetadata(TensorProperties(dtype=getattr(torch, dtype)), torch.Size(shape), chunks)


def _part(opened: Any, place: _Place, offsets: torch.Size, lengths: torch.Size) -> Tensor:
    """Read a box of a tensor, and nothing else of it."""
    if not offsets:
        part: Tensor = opened.get_tensor(place.name)
    else:
        part = opened.get_slice(place.name)[
            tuple(slice(offset, offset + length) for offset, length in zip(offsets, lengths, strict=True))
        ]
    return part if place.raw is None else spelled_out(part.clone(), place.raw, list(lengths))
