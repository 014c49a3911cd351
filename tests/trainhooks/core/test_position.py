"""Positions: counted in samples, nothing repeated, nothing skipped, whatever batch size and ranks change."""

from hypothesis import given
from hypothesis import strategies as st

from trainhooks.core.position import Deal, Position, Tail

tails = st.sampled_from(Tail)


@given(st.integers(0, 200), st.integers(1, 20), st.integers(1, 5), tails)
def test_an_epoch_deals_each_place_at_most_once_and_in_order(length: int, batch: int, world: int, tail: Tail) -> None:
    deal = Deal(length=length, batch=batch, world=world, tail=tail)
    dealt = [place for offset in deal.steps(0) for rank in range(world) for place in deal.share(offset, rank)]
    assert dealt == list(range(len(dealt)))
    left_out = length - len(dealt)
    assert left_out < (world if tail is Tail.KEEP else deal.per_step)
    assert len(list(deal.steps(0))) == deal.count()


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 5))
def test_ranks_get_equally_many(length: int, batch: int, world: int) -> None:
    deal = Deal(length=length, batch=batch, world=world)
    for offset in deal.steps(0):
        assert len({len(deal.share(offset, rank)) for rank in range(world)}) == 1


@given(st.integers(1, 100), st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 6)), min_size=1))
def test_changing_batch_and_ranks_within_an_epoch_repeats_and_skips_nothing(
    length: int, changes: list[tuple[int, int, int]]
) -> None:
    position, seen = Position(), list[int]()
    for batch, world, steps in [*changes, (1, 1, length)]:
        deal = Deal(length=length, batch=batch, world=world)
        for _ in range(steps):
            if position.epoch > 0 or deal.take(position.offset) == 0:
                break
            seen += [place for rank in range(world) for place in deal.share(position.offset, rank)]
            position = deal.after(position)
    assert seen == list(range(len(seen)))
    if position.epoch == 0:
        assert len(seen) == length - (length - position.offset)
    else:  # a step of several ranks was the last: fewer samples than ranks were left
        assert length - len(seen) < 3


def test_the_last_step_leads_to_the_next_epoch() -> None:
    deal = Deal(length=10, batch=4)
    assert deal.after(Position(epoch=3, offset=8)) == Position(epoch=4, offset=0)
    assert Deal(length=10, batch=4, tail=Tail.DROP).after(Position(epoch=3, offset=4)) == Position(epoch=4)


def test_an_empty_data_set_has_no_step() -> None:
    assert Deal(length=0, batch=4).take(0) == 0
    assert Deal(length=0, batch=4).count() == 0
