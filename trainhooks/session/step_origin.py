"""Which samples a step was made of, as a loop with a loader of its own gives them."""

from collections.abc import Iterable, Sequence

from trainhooks.core.argument import wrong
from trainhooks.core.origin import Id, Keys, Origin, is_key
from trainhooks.errors import ConfigInvalid


def origin_of(
    ids: Sequence[Id] | None, keys: Sequence[Iterable[tuple[str, int | None]]] | None, epoch: int | None
) -> Origin:
    """Check the arguments of `ProgressTracker.record_lineage` and return them as an origin.

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
    return Origin(epoch=epoch, ids=None if ids is None else tuple(ids), keys=known)


def _checked(keys: Iterable[tuple[str, int | None]]) -> Keys:
    found = tuple((key, ordinal) for key, ordinal in keys)
    for key, _ in found:
        if not is_key(key):
            raise ConfigInvalid(f"{key!r} is no key.", hint="A key is 64 hex digits: Cache-Status names it.")
    return found
