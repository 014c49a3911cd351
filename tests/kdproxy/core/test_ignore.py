"""`ignore`: text at exact positions that the key leaves out."""

import copy
from typing import Any

import pytest

from kdproxy.core import ignore


@pytest.mark.parametrize(
    ("rule", "members", "left", "named"),
    [
        ("a~x", {"a": "1x2x"}, {"a": "12"}, ("a",)),
        ("a~x", {"a": "12"}, {"a": "12"}, ()),
        ("a~x", {"b": "x"}, {"b": "x"}, ()),
        ("a~x", {"a": 3}, {"a": 3}, ()),
        ("a.b~x", {"a": {"b": "x", "c": "x"}}, {"a": {"b": "", "c": "x"}}, ("a.b",)),
        ("m[0].c~x", {"m": [{"c": "x"}, {"c": "x"}]}, {"m": [{"c": ""}, {"c": "x"}]}, ("m[0].c",)),
        ("m[-1].c~x", {"m": [{"c": "x"}, {"c": "x"}]}, {"m": [{"c": "x"}, {"c": ""}]}, ("m[-1].c",)),
        ("m[].c~x", {"m": [{"c": "x"}, {"c": "x"}]}, {"m": [{"c": ""}, {"c": ""}]}, ("m[].c",)),
        ("m[5].c~x", {"m": [{"c": "x"}]}, {"m": [{"c": "x"}]}, ()),
        ("m[-2].c~x", {"m": [{"c": "x"}]}, {"m": [{"c": "x"}]}, ()),
        (
            "m~x",
            {"m": [{"type": "text", "text": "xy"}, {"n": "x"}]},
            {"m": [{"type": "text", "text": "y"}, {"n": "x"}]},
            ("m",),
        ),
        ("a~x~y", {"a": "x~yz"}, {"a": "z"}, ("a",)),
        ("a~(?m)^D: .*$", {"a": "D: 1\nq\nD: 2"}, {"a": "\nq\n"}, ("a",)),
    ],
)
def test_a_rule(rule: str, members: dict[str, Any], left: dict[str, Any], named: tuple[str, ...]) -> None:
    before = copy.deepcopy(members)
    assert ignore.applied(members, [ignore.parse(rule)]) == (left, named)
    assert members == before
    assert str(ignore.parse(rule)) == rule


@pytest.mark.parametrize(
    "text", ["", "a", "a~", "~x", "a~(", ".a~x", "a[x]~x", "a[-]~x", "a..b~x", "a~.*", r"a~(?s).+", r"a~[\s\S]*"]
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match=r"must look like|no valid regular|leaves out all text"):
        ignore.parse(text)
