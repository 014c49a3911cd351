"""From what was measured to rows of the table: ratios and differences of pairs."""

from collections.abc import Callable
from dataclasses import asdict

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
                cpu=_cpu(values, taken[reference]),
                verdict=judged(is_met(ratio)) if candidate == KDPROXY else Verdict.REPORTED,
                data={candidate: _rows(values), reference: _rows(taken[reference])},
            )
        )
    return rows


def added_rows(
    name: str, taken: dict[str, list[Measured]], reference: str, measure: str, *, goal_ms: float
) -> list[Figure]:
    """Tell what comes on top of the reference, pair by pair."""
    rows = []
    base = [getattr(measured, measure) / 1e3 for measured in taken[reference]]
    for candidate, values in taken.items():
        if candidate == reference:
            continue
        own = [getattr(measured, measure) / 1e3 for measured in values]
        added = [value - other for value, other in zip(own, base, strict=True)]
        is_goal = candidate == KDPROXY
        rows.append(
            Figure(
                work=_work(name, candidate),
                goal=f"<= {goal_ms:g} ms above {reference}" if is_goal else "",
                figure=f"+{middle(added):.2f} ms",
                reference=f"{middle(base):.2f} ms",
                cpu=_cpu(values, taken[reference]),
                verdict=judged(middle(added) <= goal_ms) if is_goal else Verdict.REPORTED,
                data={"added_ms": added, candidate: _rows(values), reference: _rows(taken[reference])},
            )
        )
    return rows


def _work(name: str, candidate: str) -> str:
    return name if candidate == KDPROXY else f"  ({candidate})"


def _cpu(values: list[Measured], base: list[Measured]) -> str:
    own, other = (
        [measured.cpu[0] for measured in taken if measured.cpu and measured.cpu[0] is not None]
        for taken in (values, base)
    )
    return f"{middle(own):.0f} ({middle(other):.0f})" if own and other else ""


def _rows(values: list[Measured]) -> list[dict[str, object]]:
    return [asdict(measured) for measured in values]
