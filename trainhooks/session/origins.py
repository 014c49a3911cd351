"""What a loop with a loader of its own says of where a step's samples came from."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from trainhooks.core.argument import wrong
from trainhooks.core.lineage import LINEAGE, Teller
from trainhooks.core.origin import Id, Keys, Origin, is_key
from trainhooks.errors import ConfigInvalid


class StepOrigins(ABC):
    """The part of a tracker that is told the samples of a step."""

    def __init__(self) -> None:
        self._teller = Teller()

    def record_lineage(
        self,
        ids: Sequence[Id] | None,
        keys: Sequence[Iterable[tuple[str, int | None]]] | None = None,
        *,
        epoch: int | None = None,
    ) -> None:
        """Say which samples the running step is made of. The next row holds it: call it before `update_metrics`.

        With `steps()` this happens by itself.

        Args:
            ids: of each sample; None: not known.
            keys: of each sample, the stored answers that it was made of: (key, ordinal or None), as
                `trainhooks.lineage.noting` collects them; None: not known.

        Raises:
            ConfigInvalid: something is no key, or ids and keys are not equally many.
        """
        for name, given in (("ids", ids), ("keys", keys)):
            if given is not None and (isinstance(given, str | bytes) or not hasattr(given, "__len__")):
                raise wrong(f"record_lineage({name})", given, "a list with an entry for each sample, or None")
        try:
            known = None if keys is None else tuple(map(_checked, keys))
        except (TypeError, ValueError) as error:
            raise wrong("record_lineage(keys)", keys, "a list of (key, ordinal) for each sample") from error
        if ids is not None and known is not None and len(ids) != len(known):
            raise ConfigInvalid(
                f"There are {len(ids)} ids and keys for {len(known)} samples.", hint="Give keys for each sample, or []."
            )
        self.record_origin(Origin(epoch=epoch, ids=None if ids is None else tuple(ids), keys=known))

    def record_origin(self, origin: Origin) -> None:
        """As `record_lineage`, of an origin that was read from batches."""
        self.attach({LINEAGE: self._teller.members(origin)})

    @abstractmethod
    def attach(self, members: dict[str, Any]) -> None:
        """Add members to the next row."""


def _checked(keys: Iterable[tuple[str, int | None]]) -> Keys:
    found = tuple((key, ordinal) for key, ordinal in keys)
    for key, _ in found:
        if not is_key(key):
            raise ConfigInvalid(f"{key!r} is no key.", hint="A key is 64 hex digits: Cache-Status names it.")
    return found
