"""A permutation of range(n) that is computed place by place: nothing is shuffled, stored or replayed.

A Feistel network over the smallest even number of bits that holds n, walked until the value falls below n (Black and
Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). Place 10^7 costs what place 0 costs.

The order is part of the checkpoint's format: a position means nothing without it. tests/data/order_v1.json holds
it still.
"""

import numpy as np
from numpy.typing import NDArray

from trainhooks.core import seed

_ROUNDS = 6
"""4 are uneven for few samples (length 5, last place: chi-square of 19 per degree of freedom), 6 are not."""
_U64 = np.uint64


class Permutation:
    """A bijection of range(length) drawn by `key`. Same key and length, same permutation, on every machine."""

    def __init__(self, length: int, *, key: int) -> None:
        self.length = length
        bits = max(1, (length - 1).bit_length())
        self._half = _U64((bits + 1) // 2)
        self._mask = _U64((1 << int(self._half)) - 1)
        self._keys = [_U64(seed.derive("permutation", key, number)) for number in range(_ROUNDS)]

    def __getitem__(self, places: range) -> NDArray[np.int64]:
        """Return the values at `places`, shape (len(places),), in order."""
        values = np.arange(places.start, places.stop, places.step, dtype=_U64)
        values = self._encipher(values)
        outside = np.flatnonzero(values >= self.length)
        while outside.size:
            values[outside] = self._encipher(values[outside])
            outside = outside[values[outside] >= self.length]
        return values.astype(np.int64)

    def _encipher(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        return (left << self._half) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). Overflow wraps, as meant."""
    values = (values ^ (values >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> _U64(27))) * _U64(0x94D049BB133111EB)
    return values ^ (values >> _U64(31))
