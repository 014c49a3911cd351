"""The data of a session: its loader, where in it the session goes on, and what is known of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trainhooks import lineage
from trainhooks.core.certificate import DIGESTS
from trainhooks.core.lineage import LINEAGE, Teller
from trainhooks.errors import ConfigInvalid

if TYPE_CHECKING:
    from trainhooks.core.origin import Origin
    from trainhooks.pytorch.source import Loader

RANDOM_EVERY_STEPS = 10
"""How often a row holds a digest of the random numbers; the first step after a checkpoint does too."""


class Feed:
    """Gives batches from the position where the session stopped."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.wants_random = True
        """Whether the next row is to hold a digest of the random numbers, whatever its step."""
        self._loader: Loader | None = None
        self._ranks = 1
        self._teller = Teller()
        self._told: dict[str, Any] = {}
        self._saved: dict[str, Any] | None = None

    def resume(self, saved: dict[str, Any] | None) -> None:
        """Take over the position of a checkpoint; a loader that is made later begins there."""
        self._saved = saved

    def open(self, source: Any, *, world: int = 1, **options: Any) -> Loader:
        """Make the loader. Sources and options: see `trainhooks.pytorch.source.make_loader`."""
        from trainhooks.pytorch.source import make_loader

        loader = make_loader(source, seed=self.seed, world=world, **options)
        if self._loader is not None and self._loader.origin is not None:  # made anew in the middle, as in a notebook
            self._saved = self._loader.state_dict()
        if self._saved is not None:
            loader.load_state_dict(self._saved)
        self._ranks, self._loader = world, loader
        return loader

    def batches(self) -> Iterator[Any]:
        """Yield batches, epoch after epoch, without end."""
        if self._loader is None:
            raise ConfigInvalid("steps() has no data.", hint="Call progress.loader(dataset, batch_size=...) before.")
        while True:
            yield from self._loader

    def position(self) -> dict[str, Any] | None:
        """Return where the loader is, behind the batch that it gave last; None without one."""
        return self._saved if self._loader is None else self._loader.state_dict()

    @property
    def origin(self) -> Origin | None:
        """Where the last batch came from."""
        return None if self._loader is None else self._loader.origin

    def made_of(self) -> dict[str, Any]:
        """Return what the row of the step that begins says of where its batch came from; hear what the loop asks."""
        lineage.listen()
        if self.origin is None:
            return {}
        self._told = self._teller.members(self.origin)
        if self._ranks > 1:
            self._told["ranks"] = self._ranks
        return {LINEAGE: self._told}

    def asked_for(self) -> dict[str, Any]:
        """Return what is to be added when the step ends: the answers that the loop itself asked for in it."""
        asked = lineage.take()
        return {LINEAGE: {**self._told, "asked": asked}} if asked else {}

    def digests(self, step: int, batch: Any) -> dict[str, Any]:
        """Return what the row of step `step` says of its batch for the certificate, before the loop gets it."""
        from trainhooks.pytorch import fingerprint

        digests = {"batch": fingerprint.of_batch(self.origin, batch)}
        if self.wants_random or step % RANDOM_EVERY_STEPS == 0:
            self.wants_random = False
            digests["random"] = fingerprint.of_random_numbers()
        return {DIGESTS: digests}
