"""What one rank writes of a checkpoint: files of tensors, and JSON that tells what they are."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainhooks.errors import StateUnsupported
from trainhooks.pytorch import sharding
from trainhooks.pytorch.capture import Part
from trainhooks.pytorch.saved import GRADIENTS, RANK, SHARD, STATE, read_json
from trainhooks.pytorch.sharding import Box


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """One safetensors file."""

    name: str
    tensors: Mapping[str, Tensor]
    """By reference."""
    metadata: Mapping[str, str]


class Share:
    """Every rank has its own part and its boxes of what is dealt out; what all have alike is written by rank 0.

    Args:
        parts: by object.
        gradients: those that are dealt out.
        own: what this rank has for itself.
        kinds: from `TrainingState.kinds`.
    """

    def __init__(
        self, rank: int, parts: Mapping[str, Part], gradients: Part | None, own: Part, kinds: Mapping[str, Any]
    ) -> None:
        self._rank = rank
        self._objects = parts
        self._gradients = gradients
        self._own = own
        self._kinds = kinds
        self._parts = {**parts, **({} if gradients is None else {GRADIENTS: gradients})}
        self._boxes = {name: _boxes(part) for name, part in self._parts.items() if part.sharded}
        self.files = list(self._files())

    def _files(self) -> Iterator[TensorFile]:
        for name, part in self._parts.items():
            if self._rank == 0 and name != GRADIENTS:
                whole = {key: tensor for key, tensor in part.tensors.items() if key not in part.sharded}
                aliases = {alias: key for alias, key in part.aliases.items() if key in whole}
                yield TensorFile(name=name, tensors=whole, metadata={"format": "pt", **aliases})
            if part.sharded:
                mine = {key: part.tensors[key] for key in self._boxes[name]}
                stem = SHARD.format(self._rank)
                yield TensorFile(name=f"{stem}.{name}", tensors=mine, metadata={"format": "pt"})
        yield TensorFile(name=RANK.format(self._rank), tensors=self._own.tensors, metadata={"format": "pt"})

    def tensors(self) -> list[Tensor]:
        """Return the tensors of all files, in order."""
        return [tensor for file in self.files for tensor in file.tensors.values()]

    def texts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (file name, members)."""
        yield f"{RANK.format(self._rank)}.json", self._own.describe()
        if self._boxes:
            yield f"{SHARD.format(self._rank)}.json", {"parts": self._boxes}
        if self._rank == 0:
            described = {name: part.describe() for name, part in self._objects.items()}
            members = {"kinds": self._kinds, "objects": described}
            yield STATE, members if self._gradients is None else {**members, GRADIENTS: self._gradients.describe()}

    @property
    def whole_bytes(self) -> int:
        """About what the checkpoint takes on disk: the shares of all ranks."""
        parts = [*self._parts.values(), self._own]
        every = [part.sharded.get(key, tensor) for part in parts for key, tensor in part.tensors.items()]
        return sum(tensor.numel() * tensor.element_size() for tensor in every)

    def check_whole(self, draft: Path, world: int) -> None:
        """On rank 0, once all have written: the boxes of all ranks make up every tensor that is dealt out.

        Raises:
            StateUnsupported: naming the first that they do not.
        """
        if not self._boxes:
            return
        ranks = [read_json(draft, f"{SHARD.format(rank)}.json")["parts"] for rank in range(world)]
        for name, part in self._parts.items():
            for key, tensor in part.sharded.items():
                found = [parts[name][key] for parts in ranks if key in parts[name]]
                boxes = {(tuple(offsets), tuple(sizes)) for offsets, sizes in found}  # other meshes have it too
                covered = sum(math.prod(sizes) for _, sizes in boxes)
                if covered != tensor.numel() or len({offsets for offsets, _ in boxes}) < len(boxes):
                    raise StateUnsupported(
                        f"{name}: the ranks together do not have the whole of {key}.",
                        hint="Give state= the same objects on every rank.",
                    )


def _boxes(part: Part) -> dict[str, Box]:
    boxes = {key: sharding.own_box(tensor) for key, tensor in part.sharded.items()}
    return {key: box for key, box in boxes.items() if box is not None}
