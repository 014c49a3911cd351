"""What differs between two attempts, and what becomes of it."""

import pytest

from trainhooks.core.drift import Change, Policy, compare, flatten, rules_of
from trainhooks.errors import ConfigInvalid

RULES = rules_of({})


def policies(before: dict[str, object], after: dict[str, object], **given: str) -> dict[str, Policy]:
    changes = compare(before, after, rules_of(given))  # type: ignore[arg-type]
    return {change.name: change.policy for change in changes}


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("model.student.shape_sha256", Policy.BLOCK),
        ("data.length", Policy.BLOCK),
        ("data.record.7", Policy.BLOCK),
        ("data.type", Policy.WARN),
        ("tokenizer", Policy.BLOCK),
        ("config.seed", Policy.BLOCK),
        ("config.train.batch_size", Policy.BLOCK),
        ("config.per_device_train_batch_size", Policy.BLOCK),
        ("config.optimizer.lr", Policy.WARN),
        ("config.logit_temperature", Policy.WARN),  # no log_
        ("config.catalog_size", Policy.WARN),
        ("config.log_every", Policy.ALLOW),
        ("config.train.num_workers", Policy.ALLOW),
        ("environment.torch", Policy.WARN),
        ("environment.host", Policy.ALLOW),
        ("code.commit", Policy.WARN),
        ("world", Policy.WARN),
        ("total_steps", Policy.WARN),
    ],
)
def test_defaults(name: str, policy: Policy) -> None:
    assert policies({name: 1}, {name: 2}) == {name: policy}
    assert policies({name: 1}, {name: 1}) == {}


def test_the_user_goes_first_and_may_leave_config_out() -> None:
    before, after = {"config.train.batch_size": 8, "data.length": 5}, {"config.train.batch_size": 4, "data.length": 6}
    assert policies(before, after, **{"train.batch_size": "allow", "data.*": "warn"}) == {
        "config.train.batch_size": Policy.ALLOW,
        "data.length": Policy.WARN,
    }
    assert policies({"config.lr": 1}, {"config.lr": 2}, **{"*": "block"}) == {"config.lr": Policy.BLOCK}


def test_of_the_configuration_what_comes_and_goes_counts_too() -> None:
    before = {"config.a": 1, "environment.cuda": "13.0"}
    after = {"config.b": None, "config.c": 2, "data.revision": "x"}
    assert [str(change) for change in compare(before, after, RULES)] == [
        "config.a was 1 and is not set",
        "config.c was not set and is 2",
    ]


def test_a_long_value_is_shown_short() -> None:
    change = Change(name="config.prompt", before="x" * 500, after=None, policy=Policy.WARN)
    assert len(str(change)) < 120


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigInvalid, match=r"'lr': 'ignore'.*'block', 'warn', 'allow'"):
        rules_of({"lr": "ignore"})


def test_flatten() -> None:
    nested = {"a": {"b": [1, {"c": "x"}]}, "d": None}
    assert dict(flatten(nested, "config")) == {"config.a.b.0": 1, "config.a.b.1.c": "x", "config.d": None}
