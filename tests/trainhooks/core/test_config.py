"""Configurations: plain, starred, compared."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainhooks.core.config import fingerprint, validate
from trainhooks.errors import ConfigInvalid


def test_what_json_lacks_is_kept_as_text() -> None:
    config = {
        "data": Path("x/y"),
        "dtype": torch.bfloat16,
        "betas": (0.9, 0.95),
        "tags": {"b", "a"},
        "inf": float("inf"),
    }
    assert validate(config, 1) == {
        "data": "x/y",
        "dtype": "torch.bfloat16",
        "betas": [0.9, 0.95],
        "tags": ["a", "b"],
        "inf": "inf",
    }


def test_an_object_with_attributes_will_do() -> None:
    assert validate(SimpleNamespace(lr=0.1), 5) == {"lr": 0.1}


@pytest.mark.parametrize(
    "name", ["api_key", "OPENAI_API_KEY", "apikey", "password", "client_secret", "hf_token", "token"]
)
def test_credentials_are_starred(name: str) -> None:
    assert validate({"teacher": {name: "abcdef"}}, 1) == {"teacher": {name: "***"}}


@pytest.mark.parametrize("name", ["eos_token", "pad_token", "tokenizer", "max_tokens", "keys"])
def test_names_that_look_alike_are_not(name: str) -> None:
    assert validate({name: "</s>"}, 1) == {name: "</s>"}


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        validate({"a": object(), "b": {"c": [lambda: None]}}, 0)
    for part in ("total_steps", "config.a", "config.b.c[0]"):
        assert part in str(caught.value)


@pytest.mark.parametrize("total_steps", [0, -1, 1.5, "9", None, True])
def test_total_steps_is_a_whole_number(total_steps: object) -> None:
    with pytest.raises(ConfigInvalid, match="total_steps"):
        validate({}, total_steps)


def test_the_fingerprint_is_of_what_it_says_and_not_of_its_order() -> None:
    assert fingerprint(validate({"a": 1, "b": [2]}, 1)) == fingerprint(validate({"b": (2,), "a": 1}, 9))
    assert fingerprint(validate({"a": 1}, 1)) != fingerprint(validate({"a": 1.0}, 1))
