"""How the inputs of one window of training differ from those of another: counts, and distances between them.

A distribution is counts by bin. Distances are taken between shares, each bin smoothed by half a count, so that a bin
that one side never saw gives a large number and not an infinite one.
"""

import math
from collections.abc import Iterable, Mapping

from trainhooks.core import seed

Counts = Mapping[str, int]

SHIFTED_PSI = 0.25
"""Below 0.1 a distribution is called stable, above 0.25 shifted: the usual reading of the population stability index
(Siddiqi, "Credit Risk Scorecards", 2006, chapter 9)."""

_SMOOTHING = 0.5
_LONGEST_LABEL = 24
_LOG_PROBABILITY_BIN = 0.5
_LEAST_LOG_PROBABILITY = -20.0


def length_bin(length: int) -> str:
    """Bin a length (samples, tokens, characters): a quarter of an octave wide."""
    return "0" if length <= 0 else str(math.floor(4 * math.log2(length)) + 1)


def token_bin(token: int, *, buckets: int = 512) -> str:
    """Bin a token id: by a hash, since a vocabulary has more members than a window has tokens."""
    return str((token * 0x9E3779B97F4A7C15 >> 20) % buckets)


def log_probability_bin(value: float) -> str:
    """Bin a natural log probability: half a nat wide, all below -20 together."""
    if math.isnan(value):
        return "nan"
    return str(math.floor(max(value, _LEAST_LOG_PROBABILITY) / _LOG_PROBABILITY_BIN))


def label_bin(label: object, *, buckets: int = 256) -> str:
    """Bin a label: itself where it is short, else by a hash."""
    text = str(label)
    if len(text) <= _LONGEST_LABEL:
        return text
    return "#" + str(seed.derive("label", text) % buckets)


def population_stability_index(now: Counts, first: Counts) -> float:
    """Return the PSI, sum of (p - q) ln(p / q), less what chance alone gives: 0 for one distribution, in nats.

    Two samples of n and m from one distribution over B bins differ by about (B - 1) (1/n + 1/m), with a standard
    deviation of sqrt(2 (B - 1)) (1/n + 1/m): the PSI is a chi-squared statistic (Yurdakul, "Statistical Properties of
    Population Stability Index", 2018). Where two of these deviations are more than `SHIFTED_PSI`, the samples are too
    few to distinguish a shift from chance: NaN.
    """
    total_now, total_first = sum(now.values()), sum(first.values())
    if not total_now or not total_first:
        return math.nan
    freedom = len(now.keys() | first.keys()) - 1
    share = 1 / total_now + 1 / total_first
    if 2 * math.sqrt(2 * freedom) * share > SHIFTED_PSI:
        return math.nan
    found = sum((p - q) * math.log(p / q) for p, q in _shares(now, first))
    return max(0.0, found - freedom * share)


def kullback_leibler(now: Counts, first: Counts) -> float:
    """Return KL(now || first) in nats."""
    return sum(p * math.log(p / q) for p, q in _shares(now, first))


def jensen_shannon(now: Counts, first: Counts) -> float:
    """Return the Jensen-Shannon divergence in bits: 0 for equal shares, 1 for disjoint ones (Lin, 1991)."""
    total_now, total_first = sum(now.values()) or 1, sum(first.values()) or 1
    distance = 0.0
    for name in now.keys() | first.keys():
        p, q = now.get(name, 0) / total_now, first.get(name, 0) / total_first
        middle = (p + q) / 2
        distance += sum(share / 2 * math.log2(share / middle) for share in (p, q) if share)
    return min(1.0, max(0.0, distance))


def _shares(now: Counts, first: Counts) -> Iterable[tuple[float, float]]:
    names = sorted(now.keys() | first.keys())
    total_now = sum(now.values()) + _SMOOTHING * len(names)
    total_first = sum(first.values()) + _SMOOTHING * len(names)
    for name in names:
        yield (now.get(name, 0) + _SMOOTHING) / total_now, (first.get(name, 0) + _SMOOTHING) / total_first
