"""What several ranks find before the first step, put together on each of them."""

import json
from typing import Any

from trainhooks.core import upcoming
from trainhooks.core.certificate import IDS, RANDOM
from trainhooks.core.origin import Origin
from trainhooks.core.ranks import Alone
from trainhooks.pytorch import fingerprint
from trainhooks.session.feed import Feed
from trainhooks.session.resumption import Resumption


class Two(Alone):
    """Rank 0 of two; the other one finds what it is given."""

    world = 2

    def __init__(self, other: dict[str, Any]) -> None:
        self.other = other

    def gather(self, text: bytes) -> list[bytes]:
        return [text, json.dumps(self.other).encode()]


def found(other: dict[str, Any], *, rank: int = 0) -> dict[str, str | None]:
    keeper: Any = None  # not asked for the first batch
    saved = {"": upcoming.members(Origin(epoch=0, ids=(3, 4)), rank=rank)}
    progress = {"rank": rank, "next": saved, "random": fingerprint.of_generators()}
    said = Resumption(progress, keeper, Feed(1), Two(other)).compare_first(Origin(epoch=0, ids=(3, 4)))
    return {fact: None if each is None else str(each) for fact, each in said.items()}


def test_a_difference_on_another_rank_names_it() -> None:
    other = {IDS: {"what": IDS, "before": "5, 6", "after": "0, 1"}, RANDOM: None}
    assert found(other) == {IDS: "batch ids (rank 1): was 5, 6, is 0, 1", RANDOM: None}


def test_what_one_rank_could_not_compare_is_not_called_compared() -> None:
    assert found({RANDOM: None}) == {RANDOM: None}


def test_a_rank_that_the_checkpoint_does_not_have_compares_nothing() -> None:
    assert found({IDS: None, RANDOM: None}, rank=1) == {}
