"""Positions are exact places: what has the same name elsewhere stays."""

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core import position

PLACES = position.tree(["a", "b[].a", "b[].c.a", "d.*credential*", "e"])


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ({"a": 1, "x": 2}, {"x": 2}),
        ({"x": {"a": 1}}, {"x": {"a": 1}}),
        ({"b": [{"a": 1, "x": 2}, {"a": None}, 3]}, {"b": [{"x": 2}, {}, 3]}),
        ({"b": {"a": 1}}, {"b": {"a": 1}}),
        ({"b": [{"c": {"a": 1, "y": 1}}]}, {"b": [{"c": {"y": 1}}]}),
        ({"b": [{"c": [{"a": 1}]}]}, {"b": [{"c": [{"a": 1}]}]}),
        ({"b": [[{"a": 1}]]}, {"b": [[{"a": 1}]]}),
        ({"d": {"api_key": "x", "Client-Secret": "y", "max_tokens": 1}}, {"d": {"max_tokens": 1}}),
        ({"d": {"*credential*": 1, "[]": 2}}, {"d": {"*credential*": 1, "[]": 2}}),
        ({"[]": {"a": 1}, "b": {"[]": {"a": 1}}}, {"[]": {"a": 1}, "b": {"[]": {"a": 1}}}),
        ([{"a": 1}], [{"a": 1}]),
        ("a", "a"),
    ],
    ids=str,
)
def test_only_exact_places_are_taken_out(value: Any, left: Any) -> None:
    before = copy.deepcopy(value)
    assert position.without(value, PLACES) == left
    assert value == before


VALUES = st.recursive(
    st.none() | st.integers(0, 2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_what_holds_nothing_of_it_is_the_very_same_object(value: Any) -> None:
    left = position.without(value, PLACES)
    assert (left is value) == (left == value)
    assert position.without(left, PLACES) is left


@given(VALUES)
def test_what_is_replaced_stands_in_its_order(value: Any) -> None:
    starred = position.replaced(value, PLACES, lambda _: "*")
    assert position.without(starred, PLACES) == position.without(value, PLACES)
    if isinstance(value, dict):
        assert list(starred) == list(value)


@pytest.mark.parametrize(
    ("place", "found"),
    [("a", [1]), ("b[]", [{"c": 2}, 3]), ("b[].c", [2]), ("c", []), ("a.b", []), ("a[]", []), ("b.c", [])],
)
def test_what_stands_at_a_position(place: str, found: list[Any]) -> None:
    assert list(position.found({"a": 1, "b": [{"c": 2}, 3]}, place)) == found


def test_a_place_inside_another_is_part_of_it() -> None:
    assert position.without({"e": {"f": 1}}, position.tree(["e.f", "e"])) == {}


@pytest.mark.parametrize(
    "name",
    [
        *("api_key", "API-KEY", "azure_api_key", "x-api-key", "aws_secret_access_key", "aws_session_token"),
        *("azure_ad_token", "client_secret", "authorization", "Proxy-Authorization", "vertex_credentials"),
        *("connection_string", "langfuse_secret_key", "embeddingKey", "authorization_token", "aws_access_key_id"),
    ],
)
def test_a_credentials_name(name: str) -> None:
    assert position.is_credential(name)


@pytest.mark.parametrize(
    "name",
    [
        *("max_tokens", "stop_token_ids", "key", "prompt_cache_key", "eos_token", "secretary", "logit_bias", "token"),
        *("continuation_token", "x-team", "model"),
    ],
)
def test_no_credentials_name(name: str) -> None:
    assert not position.is_credential(name)


@given(VALUES)
def test_a_text_without_the_names_has_nothing_further_in(value: Any) -> None:
    """What spares the walk must never spare one that would have found something."""
    outer = position.without_outer(value, PLACES)
    if isinstance(outer, dict) and not PLACES.may_reach_in(outer, orjson.dumps(outer)):
        assert position.without(outer, PLACES) is outer
    assert position.without(outer, PLACES) == position.without(value, PLACES)


def test_names_with_quotes_and_beyond_ascii_are_found_in_a_text() -> None:
    places = position.tree(['a[]."é"'])
    value = {"a": [{'"é"': 1}]}
    assert places.may_reach_in(value, orjson.dumps(value))
    assert position.without(value, places) == {"a": [{}]}
