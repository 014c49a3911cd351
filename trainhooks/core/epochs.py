"""How many epochs a training has completed, according to its rows."""

from collections.abc import Iterable


def count(epochs: Iterable[float]) -> float | None:
    """Return it: of whole numbers how many there are, of fractions (Hugging Face) how far they came; None for none.

    Args:
        epochs: of the rows that have one.
    """
    seen = set(epochs)
    if not seen:
        return None
    return len(seen) if all(epoch % 1 == 0 for epoch in seen) else round(float(max(seen)), 2)
