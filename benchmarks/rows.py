"""From what was measured to rows of the table: ratios and differences of pairs."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from figure import Figure, Verdict, judged, middle
from load import Measured

KDPROXY = "kdproxy"
"""The candidate that the goals are for; others are reported."""


def rate_rows(name: str, taken: dict[str, list[Measured]], reference: str, goal: float) -> list[Figure]:
    """Compare requests a second, pair by pair."""
    return _compared(name, taken, reference, "rate", f">= {goal:g} x", "{:,.0f}/s", lambda ratio: ratio >= goal)


def latency_rows(name: str, taken: dict[str, list[Measured]], reference: str, goal: float) -> list[Figure]:
    """Compare middle latencies, pair by pair."""
    return _compared(name, taken, reference, "p50", f"<= {goal:g} x", "{:,.0f} us", lambda ratio: ratio <= goal)


def _compared(
    name: str,
    taken: dict[str, list[Measured]],
    reference: str,
    measure: str,
    goal: str,
    text: str,
    is_met: Callable[[float], bool],
) -> list[Figure]:
    rows = []
    base = [getattr(measured, measure) for measured in taken[reference]]
    for candidate, values in taken.items():
        if candidate == reference:
            continue
        own = [getattr(measured, measure) for measured in values]
        ratios = [value / other for value, other in zip(own, base, strict=True)]
        ratio = middle(ratios)
        rows.append(
            Figure(
                work=_work(name, candidate),
                goal=f"{goal} {reference}",
                figure=text.format(middle(own)),
                reference=text.format(middle(base)),
                ratio=ratio,
                ratios=tuple(ratios),
                **_cpu(values, taken[reference]),
                verdict=judged(is_met(ratio)) if candidate == KDPROXY else Verdict.REPORTED,
                data={candidate: _rows(values), reference: _rows(taken[reference])},
            )
        )
    return rows


def cpu_rows(name: str, taken: dict[str, list[Measured]], reference: str, goal: float) -> list[Figure]:
    """Compare CPU time a request, pair by pair: it holds also where others use the machine."""
    rows = []
    for candidate, values in taken.items():
        if candidate == reference:
            continue
        cpu = _cpu(values, taken[reference])
        rows.append(
            Figure(
                work=_work(name, candidate),
                goal=f"<= {goal:g} x {reference}",
                figure=f"{cpu['cpu_microseconds']:.1f} us" if cpu else "",
                reference=f"{cpu['reference_cpu_microseconds']:.1f} us" if cpu else "",
                **cpu,
                verdict=judged(cpu["cpu_ratio"] <= goal) if cpu else Verdict.REPORTED,
                data={candidate: _rows(values), reference: _rows(taken[reference])},
            )
        )
    return rows


def added_rows(
    name: str, taken: dict[str, list[Measured]], reference: str, measure: str, *, goal_ms: float | None
) -> list[Figure]:
    """Report what comes on top of the reference, pair by pair; without a goal it is reported alone."""
    rows = []
    base = [getattr(measured, measure) / 1e3 for measured in taken[reference]]
    for candidate, values in taken.items():
        if candidate == reference:
            continue
        own = [getattr(measured, measure) / 1e3 for measured in values]
        added = [value - other for value, other in zip(own, base, strict=True)]
        rows.append(
            Figure(
                work=_work(name, candidate),
                goal="" if goal_ms is None or candidate != KDPROXY else f"<= {goal_ms:g} ms above {reference}",
                figure=f"+{middle(added):.2f} ms",
                reference=f"{middle(base):.2f} ms",
                **_cpu(values, taken[reference]),
                verdict=Verdict.REPORTED
                if goal_ms is None or candidate != KDPROXY
                else judged(middle(added) <= goal_ms),
                data={"added_ms": added, candidate: _rows(values), reference: _rows(taken[reference])},
            )
        )
    return rows


def _work(name: str, candidate: str) -> str:
    return name if candidate == KDPROXY else f"  ({candidate})"


def _cpu(values: list[Measured], base: list[Measured]) -> dict[str, Any]:
    pairs = [
        (own.cpu[0], other.cpu[0])
        for own, other in zip(values, base, strict=True)
        if own.cpu and other.cpu and own.cpu[0] is not None and other.cpu[0]
    ]
    if not pairs:
        return {}
    return {
        "cpu_microseconds": middle([own for own, _ in pairs]),
        "reference_cpu_microseconds": middle([other for _, other in pairs]),
        "cpu_ratio": middle([own / other for own, other in pairs]),
    }


def _rows(values: list[Measured]) -> list[dict[str, object]]:
    return [asdict(measured) for measured in values]
