"""What a window of steps was fed with: counts by bin, so that a shift of the data is seen after the training too."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from trainhooks.core.distribution import label_bin, length_bin, log_probability_bin, token_bin
from trainhooks.errors import ConfigInvalid

INPUTS = "inputs"
"""Kind of the event in metrics.jsonl that closes a window."""
WINDOW_STEPS = 100


class InputWindow:
    """Counts of the running window. Windows begin at multiples of `WINDOW_STEPS`, in every attempt alike."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._first: int | None = None

    def add(
        self,
        step: int,
        *,
        lengths: Iterable[int] | None = None,
        tokens: Any = None,
        labels: Iterable[Any] | None = None,
        logprobs: Any = None,
    ) -> dict[str, Any] | None:
        """Count a step's inputs; returns the window before it, if this step begins another one."""
        closed = None
        if self._first is not None and step // WINDOW_STEPS != self._first // WINDOW_STEPS:
            closed = self.close()
        if self._first is None:
            self._first = step
        try:
            if lengths is not None:
                self._count("length", map(length_bin, map(int, lengths)))
            if tokens is not None:
                for token, times in Counter(_flat(tokens)).items():
                    self._counts.setdefault("tokens", Counter())[token_bin(int(token))] += times
            if labels is not None:
                self._count("labels", map(label_bin, _flat(labels)))
            if logprobs is not None:
                self._count("logprobs", map(log_probability_bin, map(float, _flat(logprobs))))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigInvalid(
                f"record_inputs() cannot count what it got ({error}).",
                hint="Give whole numbers as lengths and tokens, and numbers as logprobs: tensors, arrays or lists.",
            ) from error
        return closed

    def close(self) -> dict[str, Any] | None:
        """Return the window's event members and begin a new one; None where nothing was counted."""
        if self._first is None or not self._counts:
            return None
        members = {"step": self._first, "counts": {name: dict(each) for name, each in self._counts.items()}}
        self._counts, self._first = {}, None
        return members

    def _count(self, name: str, bins: Iterable[str]) -> None:
        self._counts.setdefault(name, Counter()).update(bins)


def _flat(values: Any) -> Iterable[Any]:
    """Walk a tensor, an array or nested lists, element by element."""
    if hasattr(values, "reshape") and hasattr(values, "tolist"):
        return values.reshape(-1).tolist()  # type: ignore[no-any-return]
    return _walk(values)


def _walk(values: Any) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _walk(value)
        else:
            yield value
