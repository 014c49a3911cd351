"""What a cache lets in: names that are seen again, and few others."""

from kdproxy.core.sightings import NAMES, Sightings


def test_a_name_that_comes_again_is_known() -> None:
    sightings = Sightings()
    first = [sightings.is_second(f"name {number}") for number in range(1_000)]
    assert sum(first) < 50
    assert all(sightings.is_second(f"name {number}") for number in range(1_000))


def test_names_that_never_come_again_stay_out_however_many_there_are() -> None:
    sightings = Sightings()
    count = NAMES * 10
    assert sum(sightings.is_second(f"name {number}") for number in range(count)) < count / 8


def test_what_was_seen_long_ago_is_forgotten() -> None:
    sightings = Sightings()
    sightings.is_second("once")
    for number in range(NAMES * 2):
        sightings.is_second(number)
    assert not sightings.is_second("once")
