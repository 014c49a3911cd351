"""Which cursor a checkpoint holds, and when it says that samples may be others."""

import pytest

from trainhooks.core.cursor import Covered, Cursor, Produced, Productions, covered, covered_of, read


def at(counted: int, in_flight: int = 0) -> Cursor:
    return Cursor("a/0", f"a/{counted}", in_flight, counted)


def made(*batches: tuple[int | None, Cursor, Cursor | None], **options: bool) -> Productions:
    found = Productions(**options)
    for worker, before, after in batches:
        found.take(Produced(worker, before, after))
    return found


NOW = at(9)


@pytest.mark.parametrize(
    ("productions", "now", "cursor", "inexact"),
    [
        (None, NOW, NOW, None),
        (made((None, at(4), None)), NOW, NOW, None),
        (made((None, at(4), None)), at(9, 2), at(9, 2), "2 requests were in flight"),
        (made((0, at(0), at(4)), (0, at(4), at(6))), NOW, at(6), None),
        (made((0, at(0), at(4)), (0, at(5), at(6))), NOW, at(6), "the loop and a worker of its loader both ask"),
        (made((0, at(0), at(4, 1))), NOW, at(4, 1), "1 request was in flight"),
        (made((0, at(0), at(4)), (1, at(2), at(6))), NOW, at(6), "2 workers of the loader ask at once"),
        (made((0, at(2), at(2)), (1, at(3), at(3))), NOW, NOW, None),
        (made((None, at(0), at(4)), (None, at(4), at(9)), is_foreign=True), NOW, NOW, None),
        (made((None, at(0), at(4)), is_foreign=True), NOW, NOW, "between its batches"),
        (made((None, at(0), at(4)), (None, at(4), at(9)), reads_again=True), NOW, at(0), None),
        (made((None, at(0), at(4)), (None, at(5), at(9)), reads_again=True), NOW, at(0), "read again"),
        (made((0, at(0), at(0)), (1, at(0), at(0))), at(0), at(0), None),
    ],
    ids=[
        "no data",
        "in the loop's process",
        "something is in flight",
        "one worker ahead",
        "the loop asks beside it",
        "a worker's batch in flight",
        "two workers",
        "the loop alone asks",
        "a loader as it is",
        "a loader as it is, and the loop",
        "data that is read again",
        "data that is read again, and the loop",
        "named samples alone",
    ],
)
def test_the_cursor_is_that_of_the_consumer(
    productions: Productions | None, now: Cursor, cursor: Cursor, inexact: str | None
) -> None:
    found = covered(now, productions)
    assert found.cursor == cursor
    assert found.inexact == inexact or (inexact is not None and inexact in (found.inexact or ""))


def test_a_batch_that_comes_again_is_not_covered() -> None:
    assert covered(NOW, made((None, at(4), None)), is_again=True) == Covered(at(4))
    assert covered(NOW, made((0, at(4), at(6))), is_again=True) == Covered(at(4))
    asked = covered(NOW, made((0, at(4), at(4))), is_again=True)
    assert asked.inexact is not None


def test_a_proxy_that_was_away_is_said() -> None:
    productions = Productions()
    productions.take(Produced(0, at(0), None, "The kdproxy is away."))
    assert covered(NOW, productions).inexact == "The kdproxy is away."


def test_several_ranks_are_exact_only_with_named_samples() -> None:
    assert covered(at(0), None, world=2).inexact is None
    assert "2 processes" in (covered(at(1), None, world=2).inexact or "")


def test_what_was_saved_is_read() -> None:
    for each in (Covered(NOW), Covered(NOW, "why"), Covered(None, "why"), Covered(Cursor())):
        assert covered_of(each.members()) == each
    assert read({"attempt": "a/0", "after": None, "later": 1}) == Cursor("a/0")
    with pytest.raises(TypeError):
        read({"attempt": 1})
