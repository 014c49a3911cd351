"""Whether a loop over a generator was left by itself or broken off by an error, whatever the loop looks like."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tqdm import tqdm

from trainhooks.host.leaving import is_broken_off

Numbers = Callable[[], Any]


class Watched:
    """Gives numbers, and notes how the loop over them was left."""

    def __init__(self) -> None:
        self.was_broken_off: bool | None = None

    def numbers(self) -> Iterator[int]:
        yield from self._numbers()

    def _numbers(self) -> Iterator[int]:
        for number in range(3):
            try:
                yield number
            except GeneratorExit:
                self.was_broken_off = is_broken_off()
                raise


def breaks(numbers: Numbers) -> None:
    for _ in numbers():
        break


def returns(numbers: Numbers) -> int:
    for _ in numbers():
        return 1
    return 0


def breaks_within_blocks(numbers: Numbers) -> None:
    for _ in numbers():
        with pytest.MonkeyPatch.context():
            try:
                break
            finally:
                len("cleaned up")


def raises(numbers: Numbers) -> None:
    for _ in numbers():
        raise ValueError


def raises_in_a_call(numbers: Numbers) -> None:
    for _ in numbers():
        with pytest.MonkeyPatch.context():
            try:
                int("no number")
            finally:
                len("cleaned up")


def raises_and_is_caught(numbers: Numbers) -> None:
    try:
        for _ in numbers():
            int("no number")
    except ValueError as error:
        raise ValueError from error


WRAPPINGS: list[Callable[[Any], Any]] = [iter, enumerate, tqdm]


@pytest.mark.parametrize("wrap", WRAPPINGS, ids=["plain", "enumerate", "tqdm"])
@pytest.mark.parametrize("loop", [breaks, returns, breaks_within_blocks])
def test_left_by_itself(loop: Callable[[Numbers], object], wrap: Callable[[Any], Any]) -> None:
    watched = Watched()
    loop(lambda: wrap(watched.numbers()))
    assert watched.was_broken_off is False


@pytest.mark.parametrize("wrap", WRAPPINGS, ids=["plain", "enumerate", "tqdm"])
@pytest.mark.parametrize("loop", [raises, raises_in_a_call, raises_and_is_caught])
def test_broken_off(loop: Callable[[Numbers], object], wrap: Callable[[Any], Any]) -> None:
    watched = Watched()
    with pytest.raises(ValueError):
        loop(lambda: wrap(watched.numbers()))
    assert watched.was_broken_off is True


def test_what_outlives_its_loop_counts_as_broken_off() -> None:
    watched = Watched()
    numbers = watched.numbers()
    for _ in numbers:
        break
    assert watched.was_broken_off is None
    del numbers
    assert watched.was_broken_off is True
