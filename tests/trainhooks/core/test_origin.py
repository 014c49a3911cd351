"""What rows and batches tell of where they came from, and nothing that they do not tell."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainhooks.core.origin import Origin, keys_of_row, origin_of_batch, together

KEY, OTHER = "a" * 64, "b" * 64


@dataclass
class Example:
    key: str
    ordinal: int


@pytest.mark.parametrize(
    ("row", "keys"),
    [
        ({"key": KEY, "ordinal": 2}, ((KEY, 2),)),
        ({"key": KEY}, ((KEY, None),)),
        ({"key": KEY, "ordinal": "2"}, ((KEY, None),)),
        ({"key": KEY, "ordinal": True}, ((KEY, None),)),
        (Example(KEY, 1), ((KEY, 1),)),
        ({"key": KEY[:-1]}, ()),
        ({"key": KEY.upper()}, ()),
        ({"key": "g" * 64}, ()),
        ({"key": 7}, ()),
        ({"ordinal": 0}, ()),
        ((KEY, 0), ()),
        (torch.ones(2), ()),
        (None, ()),
    ],
)
def test_keys_of_a_row(row: Any, keys: Any) -> None:
    assert keys_of_row(row) == keys


@pytest.mark.parametrize(
    ("batch", "ids", "keys"),
    [
        (
            {"id": torch.tensor([3, 1]), "key": [KEY, OTHER], "ordinal": torch.tensor([0, 1])},
            (3, 1),
            [(KEY, 0), (OTHER, 1)],
        ),
        ({"id": ["x", "y"], "key": [KEY, "no key"]}, ("x", "y"), [(KEY, None), None]),
        ({"key": [KEY, OTHER], "ordinal": [0]}, None, [(KEY, None), (OTHER, None)]),
        ({"id": [1, 2]}, (1, 2), None),
        ({"id": [1.5, 2.0], "key": [KEY, KEY]}, None, [(KEY, None)] * 2),
        ({"id": [1], "key": [KEY, OTHER]}, None, [(KEY, None), (OTHER, None)]),
        ({"id": torch.ones(2, 2), "key": KEY}, None, [(KEY, None)]),
        ({"id": 7, "key": KEY, "ordinal": 1}, (7,), [(KEY, 1)]),
        ({"id": [], "key": ["no", "keys"]}, None, None),
        ([torch.ones(2)], None, None),
        (torch.ones(2), None, None),
    ],
)
def test_columns_of_a_batch(batch: Any, ids: Any, keys: Any) -> None:
    known = None if keys is None else tuple(() if each is None else (each,) for each in keys)
    assert origin_of_batch(batch, epoch=2) == Origin(epoch=2, ids=ids, keys=known)


def test_numbers_on_a_device_are_not_waited_for() -> None:
    def read() -> Any:
        raise AssertionError("that waits for the GPU")

    there: Any = SimpleNamespace(is_cuda=True, ndim=1, tolist=read)
    batch = {"id": there, "key": [KEY], "ordinal": there}
    assert origin_of_batch(batch, epoch=0) == Origin(epoch=0, keys=(((KEY, None),),))


def test_batches_of_one_step() -> None:
    one, two = Origin(epoch=1, ids=(1,), keys=(((KEY, 0),),)), Origin(epoch=1, ids=(2,), keys=(((OTHER, 0),),))
    assert together([one, two]) == Origin(epoch=1, ids=(1, 2), keys=(((KEY, 0),), ((OTHER, 0),)))
    assert together([one]) == one
    assert together([one, Origin(epoch=2, ids=(3,))]) == Origin(ids=(1, 3)), "which keys are whose is still known: no"
    assert together([one, Origin(epoch=1)]) == Origin(epoch=1)
    assert together([]) == Origin()
