"""How a loop over a generator was left, whatever the loop looks like."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tqdm import tqdm

from trainhooks.host import unwinding
from trainhooks.host.unwinding import Left, how_left

Numbers = Callable[[], Any]


class Watched:
    """Gives numbers, and notes how the loop over them was left."""

    def __init__(self) -> None:
        self.left: Left | None = None

    def numbers(self) -> Iterator[int]:
        yield from self._numbers()

    def _numbers(self) -> Iterator[int]:
        for number in range(3):
            try:
                yield number
            except GeneratorExit:
                self.left = how_left()
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


def raises_and_is_swallowed(numbers: Numbers) -> None:
    with contextlib.suppress(ValueError):
        for _ in numbers():
            int("no number")
    raise ValueError


def raises_while_an_error_is_handled(numbers: Numbers) -> None:
    try:
        int("no number")
    except ValueError:
        for _ in numbers():
            int("no number")


def breaks_while_an_error_is_handled(numbers: Numbers) -> None:
    try:
        int("no number")
    except ValueError:
        for _ in numbers():
            break


def breaks_behind_an_error_that_is_kept(numbers: Numbers) -> None:
    kept = []
    for _ in numbers():
        try:
            int("no number")
        except ValueError as error:
            kept.append(error)
            break


def breaks_inside_another(numbers: Numbers) -> None:
    for _ in range(2):
        for _ in numbers():
            break


def ends(numbers: Numbers) -> None:
    for _ in itertools.islice(numbers(), 2):
        pass


def ends_beside_another(numbers: Numbers) -> None:
    for _ in zip(range(2), numbers(), strict=False):
        pass


def through_a_generator(numbers: Any) -> Iterator[Any]:
    for each in numbers:
        yield [each]


WRAPPINGS: list[Callable[[Any], Any]] = [iter, enumerate, tqdm, through_a_generator]


@pytest.mark.parametrize("wrap", WRAPPINGS, ids=["plain", "enumerate", "tqdm", "generator"])
@pytest.mark.parametrize(
    "loop",
    [
        breaks,
        returns,
        breaks_within_blocks,
        breaks_while_an_error_is_handled,
        breaks_behind_an_error_that_is_kept,
        breaks_inside_another,
        ends,
        ends_beside_another,
    ],
)
def test_left_by_itself(loop: Callable[[Numbers], object], wrap: Callable[[Any], Any]) -> None:
    watched = Watched()
    loop(lambda: wrap(watched.numbers()))
    assert watched.left is Left.BY_ITSELF


@pytest.mark.parametrize("wrap", WRAPPINGS, ids=["plain", "enumerate", "tqdm", "generator"])
@pytest.mark.parametrize(
    "loop",
    [
        raises,
        raises_in_a_call,
        raises_and_is_caught,
        raises_and_is_swallowed,
        raises_while_an_error_is_handled,
    ],
)
def test_broken_off(loop: Callable[[Numbers], object], wrap: Callable[[Any], Any]) -> None:
    watched = Watched()
    with pytest.raises(ValueError):
        loop(lambda: wrap(watched.numbers()))
    assert watched.left is Left.BY_ERROR


def test_how_a_loop_over_a_variable_was_left_is_unknown() -> None:
    watched = Watched()
    numbers = watched.numbers()
    for _ in numbers:
        break
    assert watched.left is None
    del numbers
    assert watched.left is Left.UNKNOWN


@pytest.mark.parametrize("tells", [lambda frame: Left.BY_ITSELF, lambda frame: Left.BY_ERROR])
def test_an_interpreter_that_does_not_show_it_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tells: Callable[[object], Left]
) -> None:
    unwinding._is_trusted.cache_clear()
    monkeypatch.setattr(unwinding, "_look", tells)
    watched = Watched()
    breaks(watched.numbers)
    unwinding._is_trusted.cache_clear()
    assert watched.left is Left.UNKNOWN
