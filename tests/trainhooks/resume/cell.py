"""The trainings of the matrix: which differences they have, and which pairs of differences a short list covers."""

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training. Each field is a difference that an exact resume must not notice."""

    data: str = "map"
    """`map`, `iterable` (no state of its own: read again) or `stateful` (an iterable with one); and, in cells of their
    own, `weighted` and `buckets` (a DataLoader with such a sampler) or `joined` (streams, one of them shuffled)."""
    workers: int = 0
    shuffle: bool = True
    dropout: bool = True
    augment: bool = True
    """Each sample draws from python's, numpy's and torch's generators, in the worker."""
    accumulate: int = 1
    """Steps to one optimizer step."""
    amp: bool = False
    """bfloat16 autocast with a GradScaler."""
    optimizer: str = "adamw"
    """`adamw`, `sgd` (momentum) or `two` (one for each half of the model)."""
    scheduler: str = "cosine"
    """`cosine`, `lambda`, `onecycle` or `plateau`."""
    ema: bool = False
    every: int = 3
    """Steps between checkpoints."""
    asynchronous: bool = False
    order: str = "usual"
    """Of a window's calls: `usual` (backward, step, zero_grad), `start` (the step is the next window's first call) or
    `late` (a step each batch, zero_grad every fourth)."""
    wrapped: bool = False
    """A layer under activation checkpointing."""
    named: bool = False
    """A second stream of data, with a name."""
    evaluates: bool = False
    """Every fourth step, on shuffled and augmented data."""
    held: bool = False
    """The data set has a generator of its own."""
    resumes: int = 1

    def __str__(self) -> str:
        words = [self.data, f"workers{self.workers}", f"accumulate{self.accumulate}", self.optimizer, self.scheduler]
        words += [name for name in ("shuffle", "dropout", "augment", "amp", "ema") if getattr(self, name)]
        words += [name for name in ("wrapped", "named", "evaluates", "held") if getattr(self, name)]
        words += [self.order] if self.order != "usual" else []
        return "-".join([*words, f"every{self.every}", "async" * self.asynchronous or "sync", f"resumes{self.resumes}"])

    def encode(self) -> str:
        """Return it as an argument for the job."""
        return json.dumps(asdict(self))


VALUES: Mapping[str, tuple[Any, ...]] = {
    "data": ("map", "iterable", "stateful"),
    "workers": (0, 2, 4),
    "shuffle": (True, False),
    "dropout": (True, False),
    "augment": (True, False),
    "accumulate": (4, 1),
    "amp": (False, True),
    "optimizer": ("adamw", "sgd", "two"),
    "scheduler": ("cosine", "lambda", "onecycle", "plateau"),
    "ema": (False, True),
    "every": (3, 4, 6),
    "asynchronous": (False, True),
    "resumes": (1, 2, 3),
}
LOOPS: Mapping[str, tuple[Any, ...]] = {
    "data": ("map", "iterable", "stateful", "weighted", "buckets", "joined"),
    "workers": (0, 2),
    "accumulate": (4, 1),
    "optimizer": ("adamw", "sgd", "two"),
    "order": ("usual", "start", "late"),
    "wrapped": (False, True),
    "named": (False, True),
    "evaluates": (False, True),
    "held": (False, True),
    "resumes": (1, 2),
}
"""What loops do beside the training of one stream in the usual order."""
FULL = ("data", "workers", "shuffle", "dropout", "augment", "accumulate", "amp", "resumes")
"""What the long run multiplies out; the other fields are drawn for each cell."""


def pairwise(seed: int = 0, values: Mapping[str, tuple[Any, ...]] = VALUES) -> list[Cell]:
    """Return few cells in which each two values of two fields meet: the best of some random ones is taken each time."""
    draw = random.Random(seed)
    names = list(values)
    missing = {
        ((one, a), (two, b)) for one, two in itertools.combinations(names, 2) for a in values[one] for b in values[two]
    }
    cells = []
    while missing:
        best, covered = {}, set[Any]()
        for _ in range(300):
            chosen = {name: draw.choice(values[name]) for name in names}
            chosen.update(dict(draw.choice(sorted(missing, key=repr))))
            pairs = missing & set(itertools.combinations(chosen.items(), 2))
            if len(pairs) > len(covered):
                best, covered = chosen, pairs
        missing -= covered
        cells.append(Cell(**best))
    return cells


def full(seed: int) -> Iterator[Cell]:
    """Yield every combination of FULL once, in an order drawn by `seed`; the other fields are drawn."""
    draw = random.Random(seed)
    products = list(itertools.product(*(VALUES[name] for name in FULL)))
    draw.shuffle(products)
    for product in products:
        others = {name: draw.choice(values) for name, values in VALUES.items() if name not in FULL}
        yield Cell(**dict(zip(FULL, product, strict=True)), **others)
