"""Configurations: plain, starred, compared."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
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


@pytest.mark.parametrize("value", ["abc", b"abc", ["a", "b"], {"user": "me"}, Path("abc")])
@pytest.mark.parametrize("name", ["password", "api_keys", "OPENAI_KEY", "hf_tokens"])
def test_whatever_a_credential_is_it_is_starred(name: str, value: object) -> None:
    assert validate({name: value}, 1) == {name: "***"}


def test_numbers_and_switches_are_no_credentials() -> None:
    config = {"use_api_key": True, "secret": None, "api_key_count": 3}
    assert validate(config, 1) == config


@pytest.mark.parametrize("prefix", ["sk-", "hf_", "ghp_", "gsk_"])
def test_what_looks_like_a_key_is_starred_under_any_name(prefix: str) -> None:
    key = prefix + "0a1B" * 8
    assert validate({"args": ["--header", f"Bearer {key}"]}, 1) == {"args": ["--header", "Bearer ***"]}


def test_a_url_loses_its_user() -> None:
    assert validate({"url": "https://me:word@lab.example/v1"}, 1) == {"url": "https://lab.example/v1"}


class Plain:
    """As many scripts write it."""

    lr = 0.1
    betas = (0.9, 0.95)

    def helper(self) -> None:
        raise AssertionError

    @property
    def doubled(self) -> float:
        raise AssertionError


class Changed(Plain):
    lr = 0.2


@dataclass(slots=True)
class Slots:
    lr: float = 0.1


def test_a_class_with_attributes_will_do_too() -> None:
    changed = Changed()
    changed.seed = 3  # type: ignore[attr-defined]
    assert validate(Plain, 1) == validate(Plain(), 1) == {"lr": 0.1, "betas": [0.9, 0.95]}
    assert validate(changed, 1) == {"lr": 0.2, "betas": [0.9, 0.95], "seed": 3}
    assert validate(Slots(), 1) == {"lr": 0.1}


@pytest.mark.parametrize("config", [None, 3, "lr", ["lr"], object()])
def test_what_has_no_attributes_is_refused(config: object) -> None:
    with pytest.raises(ConfigInvalid, match="must be a dict or an object"):
        validate(config, 1)


def test_numbers_of_numpy_are_numbers() -> None:
    assert validate({"lr": np.float64(0.5), "n": np.int64(3)}, np.int64(5)) == {"lr": 0.5, "n": 3}


def test_a_config_that_holds_itself_is_refused() -> None:
    config: dict[str, object] = {}
    config["self"] = config
    with pytest.raises(ConfigInvalid, match="holds itself"):
        validate(config, 1)


def test_every_problem_is_reported_at_once() -> None:
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
