"""The next batch, as a checkpoint names it, against the one that was given."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainhooks.core import upcoming
from trainhooks.core.origin import Origin

IDS = (5, 3, 8)


def compared(expected: dict[str, Any], given: Origin, rank: int = 0) -> tuple[bool, str | None]:
    told, difference = upcoming.compare("batch ids", expected, given, rank=rank)
    return told, None if difference is None else str(difference)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Origin(epoch=1, ids=IDS), (True, None)),
        (Origin(epoch=1, ids=(3, 8, 5)), (True, "batch ids: was 5, 3, 8, is 3, 8, 5")),
        (Origin(epoch=0, ids=IDS), (True, "the epoch of the batch ids: was 1, is 0")),
        (Origin(epoch=1, ids=(5, 3)), (True, None)),  # a smaller batch size begins with the same samples
        (Origin(epoch=1, ids=(5, 3, 8, 9)), (True, None)),
        (Origin(epoch=1, ids=(5, 4)), (True, "batch ids from place 1 on: was 3, 8, is 4")),
        (Origin(epoch=1, ids=None), (False, None)),
    ],
)
def test_map_style(given: Origin, said: Any) -> None:
    assert compared(upcoming.members(Origin(epoch=1, ids=IDS), rank=0), given) == said


def test_another_rank_and_another_share_of_a_rank_cannot_be_compared() -> None:
    of_one = upcoming.members(Origin(epoch=0, ids=IDS), rank=1)
    assert compared(of_one, Origin(epoch=0, ids=(1, 2, 3))) == (False, None)
    assert compared(of_one, Origin(epoch=0, ids=(1, 2)), rank=1) == (False, None)
    assert compared(of_one, Origin(epoch=0, ids=(1, 2, 3)), rank=1)[1] is not None


def test_of_a_stream_the_first_sample_is_known_and_not_whose_batch_comes_at_an_epochs_end() -> None:
    expected = upcoming.members(Origin(epoch=0, ids=(12,), worker=1), rank=0, is_whole=False)
    assert compared(expected, Origin(epoch=0, ids=(12, 13), worker=1)) == (True, None)
    assert compared(expected, Origin(epoch=0, ids=(8, 9), worker=1))[1] == "batch ids: was 12, is 8, 9"
    assert compared(expected, Origin(epoch=0, ids=(8, 9), worker=0)) == (False, None)
    assert compared(expected, Origin(epoch=1, ids=(0, 1), worker=0)) == (False, None)


@given(st.lists(st.integers() | st.text(max_size=3), min_size=33, max_size=80), st.integers(0, 79))
def test_a_difference_behind_the_named_ids_is_found(ids: list[Any], at: int) -> None:
    at %= len(ids)
    expected = upcoming.members(Origin(epoch=0, ids=tuple(ids)), rank=0)
    assert compared(expected, Origin(epoch=0, ids=tuple(ids))) == (True, None)
    assert compared(expected, Origin(epoch=0, ids=(*ids[:at], "another one", *ids[at + 1 :])))[1] is not None
