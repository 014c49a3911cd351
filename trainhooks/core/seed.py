"""Seeds that depend on what a thing is and never on when it was reached."""

import hashlib

_BYTES = 8


def derive(*parts: int | str) -> int:
    """Hash the parts to a seed of 63 bits: equal parts, equal seed, on every machine and Python.

    63 bits suit `torch.manual_seed` (int64) and, cut to 32, `numpy.random.seed`.
    """
    text = "\x00".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_BYTES).digest(), "big") >> 1
