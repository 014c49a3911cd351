"""The data of a session: its loader, and where in it the session goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trainhooks.errors import ConfigInvalid

if TYPE_CHECKING:
    from trainhooks.pytorch.loader import PositionedLoader


class Feed:
    """Gives batches from the position where the session stopped."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._loader: PositionedLoader | None = None
        self._saved: dict[str, Any] | None = None

    def resume(self, saved: dict[str, Any] | None) -> None:
        """Take over the position of a checkpoint; a loader that is made later begins there."""
        self._saved = saved

    def open(self, dataset: Any, *, batch_size: int, **options: Any) -> PositionedLoader:
        """Make the loader. Options: see `PositionedLoader`."""
        from trainhooks.pytorch.loader import PositionedLoader

        self._loader = PositionedLoader(dataset, batch_size=batch_size, seed=self.seed, **options)
        if self._saved is not None:
            self._loader.load_state_dict(self._saved)
        return self._loader

    def batches(self) -> Iterator[Any]:
        """Yield batches, epoch after epoch, without end."""
        if self._loader is None:
            raise ConfigInvalid("steps() has no data.", hint="Call progress.loader(dataset, batch_size=...) before.")
        while True:
            yield from self._loader

    def position(self) -> dict[str, Any] | None:
        """Return where the loader is, behind the batch that it gave last, as JSON; None without one."""
        return self._saved if self._loader is None else self._loader.state_dict()

    def members(self) -> dict[str, Any]:
        """Return what the row of the running step is to say of its batch."""
        return {}
