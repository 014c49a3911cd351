"""Epochs as several writers count them."""

import pytest

from trainhooks.core import epochs


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([], None), ([0, 0, 1, 1], 2), ([3.0, 4.0], 2), ([0.5, 1.0, 1.5, 2.25], 2.25), ([1 / 3], 0.33)],
)
def test_whole_numbers_are_counted_and_fractions_show_how_far(rows: list[float], expected: float | None) -> None:
    assert epochs.count(rows) == expected
