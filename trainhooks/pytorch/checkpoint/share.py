"""What one rank writes of a checkpoint: files of tensors, and JSON that describes them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainhooks.errors import StateUnsupported
from trainhooks.pytorch.checkpoint import sharding
from trainhooks.pytorch.checkpoint.capture import Part
from trainhooks.pytorch.checkpoint.saved import GRADIENTS, RANK, SHARD, STATE, read_json
from trainhooks.pytorch.checkpoint.sharding import Box


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """One safetensors file."""

    name: str
    keys: tuple[str, ...]
    """The names of its tensors."""
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
        self.whole_bytes = 0
        """About what the checkpoint takes on disk, the shares of all ranks; known once `let_go` has returned."""
        self._tensors: list[Tensor] = []
        self.files = list(self._files())
        self._texts: list[tuple[str, dict[str, Any]]] | None = None
        self._dealt = {
            name: {key: tensor.numel() for key, tensor in part.sharded.items()} for name, part in self._parts.items()
        }

    def _file(self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> TensorFile:
        self._tensors += tensors.values()
        return TensorFile(name=name, keys=tuple(tensors), metadata=metadata)

    def _files(self) -> Iterator[TensorFile]:
        for name, part in self._parts.items():
            if self._rank == 0 and name != GRADIENTS:
                whole = {key: tensor for key, tensor in part.tensors.items() if key not in part.sharded}
                aliases = {alias: key for alias, key in part.aliases.items() if key in whole}
                yield self._file(name, whole, {"format": "pt", **aliases})
            if part.sharded:
                mine = {key: part.tensors[key] for key in self._boxes[name]}
                stem = SHARD.format(self._rank)
                yield self._file(f"{stem}.{name}", mine, {"format": "pt"})
        yield self._file(RANK.format(self._rank), self._own.tensors, {"format": "pt"})

    def tensors(self) -> list[Tensor]:
        """Return the tensors of all files, in order, by reference."""
        return self._tensors

    def let_go(self) -> None:
        """Keep what is to be said of the tensors, and let them go: they have been copied, and the training may not want
        them any more, as gradients."""
        self.texts()
        self._tensors = []
        for part in (*self._parts.values(), self._own):
            every = (part.sharded.get(key, tensor) for key, tensor in part.tensors.items())
            self.whole_bytes += sum(tensor.numel() * tensor.element_size() for tensor in every)
            part.tensors, part.sharded, part.paths = {}, {}, {}

    def texts(self) -> list[tuple[str, dict[str, Any]]]:
        """Return (file name, members) of each."""
        if self._texts is None:
            self._texts = list(self._describe())
        return self._texts

    def _describe(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield f"{RANK.format(self._rank)}.json", self._own.describe()
        if self._boxes:
            yield f"{SHARD.format(self._rank)}.json", {"parts": self._boxes}
        if self._rank == 0:
            described = {name: part.describe() for name, part in self._objects.items()}
            members = {"kinds": self._kinds, "objects": described}
            yield STATE, members if self._gradients is None else {**members, GRADIENTS: self._gradients.describe()}

    def check_whole(self, draft: Path, world: int) -> None:
        """On rank 0, once all have written: the boxes of all ranks make up every tensor that is dealt out.

        Raises:
            StateUnsupported: naming the first that they do not.
        """
        if not self._boxes:
            return
        ranks = [read_json(draft, f"{SHARD.format(rank)}.json")["parts"] for rank in range(world)]
        for name, dealt in self._dealt.items():
            for key, wanted in dealt.items():
                found = [parts[name][key] for parts in ranks if key in parts[name]]
                boxes = {(tuple(offsets), tuple(sizes)) for offsets, sizes in found}  # other meshes have it too
                covered = sum(math.prod(sizes) for _, sizes in boxes)
                if covered != wanted or len({offsets for offsets, _ in boxes}) < len(boxes):
                    raise StateUnsupported(
                        f"{name}: the ranks together do not have the whole of {key}.",
                        hint="Give state= the same objects on every rank.",
                    )


def _boxes(part: Part) -> dict[str, Box]:
    boxes = {key: sharding.own_box(tensor) for key, tensor in part.sharded.items()}
    return {key: box for key, box in boxes.items() if box is not None}
