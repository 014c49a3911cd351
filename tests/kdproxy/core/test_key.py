"""The key: what is in it, what is not, and that no two requests share bytes."""

import hashlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from kdproxy.core import key, position
from kdproxy.core.models import Turn
from kdproxy.core.multipart import Part, parse

BASE: dict[str, Any] = {
    "upstream": "openai",
    "method": "POST",
    "path": "/v1/chat/completions",
    "query": "",
    "headers": CIMultiDict(),
    "body": b'json:{"model":"m"}',
}


def key_of(**changes: Any) -> str:
    return key.request_key(**{**BASE, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"upstream": "openai2"},
        {"upstream": "OpenAI"},
        {"method": "PUT"},
        {"path": "/v1/chat/completions/"},
        {"path": "/v1/Chat/completions"},
        {"query": "api-version=1"},
        {"headers": CIMultiDict({"anthropic-version": "2023-06-01"})},
        {"headers": CIMultiDict({"anthropic-beta": "a"})},
        {"headers": CIMultiDict({"openai-beta": "a"})},
        {"headers": CIMultiDict({"openai-beta": ""})},
        {"body": b'json:{"model":"n"}'},
        {"body": b'form:{"model":"m"}'},
        {"body": b""},
    ],
    ids=str,
)
def test_what_can_change_the_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert key_of(**change) != key_of()


@pytest.mark.parametrize(
    "headers",
    [{name: "sk-1"} for name in sorted(key.CREDENTIAL_HEADERS)]
    + [{"User-Agent": "x"}, {"Content-Type": "application/json; charset=utf-8"}, {"traceparent": "00"}],
    ids=str,
)
def test_credentials_and_transport_do_not(headers: dict[str, str]) -> None:
    assert key_of(headers=CIMultiDict(headers)) == key_of()


def test_a_key_is_64_hex_digits_and_the_method_has_no_case() -> None:
    assert len(bytes.fromhex(key_of())) == 32
    assert key_of(method="post") == key_of()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("Anthropic-Beta", "a,b")], [("anthropic-beta", "b , a")]),
        ([("anthropic-beta", "a"), ("anthropic-beta", "b")], [("anthropic-beta", "a,b")]),
        ([("anthropic-beta", "b"), ("x", "y"), ("ANTHROPIC-BETA", "a")], [("anthropic-beta", "a,b")]),
        ([("anthropic-beta", "a"), ("anthropic-version", "1")], [("anthropic-version", "1"), ("anthropic-beta", "a")]),
    ],
)
def test_a_list_of_betas_has_no_order(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    assert key_of(headers=CIMultiDictProxy(CIMultiDict(one))) == key_of(headers=CIMultiDict(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("anthropic-beta", "a")], [("anthropic-beta", "a"), ("anthropic-beta", "b")]),
        ([("anthropic-beta", "a")], [("anthropic-beta", "A")]),
        ([("anthropic-beta", "ab")], [("anthropic-beta", "a,b")]),
        ([("anthropic-beta", "a")], [("openai-beta", "a")]),
    ],
)
def test_every_beta_counts(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    assert key_of(headers=CIMultiDict(one)) != key_of(headers=CIMultiDict(other))


FIELD = st.text(st.sampled_from("ab:\0\x01"), max_size=3)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(("upstream", "path", "query", "beta", "body"), FIELD)), min_size=2))
def test_no_two_different_field_tuples_share_bytes(requests: list[dict[str, str]]) -> None:
    keys = {
        key_of(
            upstream=fields["upstream"],
            path=fields["path"],
            query=fields["query"],
            headers=CIMultiDict({"openai-beta": fields["beta"]}),
            body=fields["body"].encode(),
        )
        for fields in requests
    }
    assert len(keys) == len({tuple(sorted(fields.items())) for fields in requests})


def test_a_length_can_not_be_moved_into_a_neighbour() -> None:
    framed = (1).to_bytes(8, "big").decode("latin-1")
    assert key_of(upstream="a", path=f"b{framed}c", query="d") != key_of(upstream="a", path="b", query=f"c{framed}d")
    assert key_of(headers=CIMultiDict({"openai-beta": ""}), body=b"x") != key_of(body=b"openai-beta:x")


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("", ""),
        ("key=secret", ""),
        ("key=secret&alt=sse", "alt=sse"),
        ("alt=sse&key=secret", "alt=sse"),
        ("api-key=s&api_key=s&api-version=1", "api-version=1"),
        ("%6Bey=secret&a=1", "a=1"),
        ("ke%79=s", ""),
        ("key", ""),
        ("monkey=1&keys=2", "keys=2&monkey=1"),
        ("b=2&a=1", "a=1&b=2"),
        ("a=2&a=1", "a=2&a=1"),
        ("b=1&a=2&b=0&a=1", "a=2&a=1&b=1&b=0"),
        ("a=1&&b=2&", "a=1&b=2"),
        ("a=%20&a=+", "a=%20&a=+"),
        ("b&a=", "a=&b"),
        ("access_token=s&sig=s&token=s&signature=s&apikey=s&limit=2", "limit=2"),
    ],
)
def test_query_is_sorted_by_name_without_credentials(raw: str, canonical: str) -> None:
    assert key.canonical_query(raw) == canonical
    assert key.canonical_query(canonical) == canonical


@pytest.mark.parametrize(
    ("raw", "stored", "is_public"),
    [
        ("", "", True),
        ("key=s&limit=2&after_id=x", "after_id=x&limit=2", True),
        ("api%2Dversion=1", "api%2Dversion=1", True),
        ("limit=2&code=s", "*&limit=2", False),
        ("bare-secret", "*", False),
    ],
)
def test_only_known_members_of_a_query_are_stored(raw: str, stored: str, is_public: bool) -> None:
    assert key.stored_query(raw) == stored
    assert key.has_public_query(raw) == is_public


@given(st.text(st.sampled_from("ab=&%26+key"), max_size=30))
def test_no_credential_survives_in_a_query(raw: str) -> None:
    kept = key.canonical_query(raw)
    assert not any(pair.partition("=")[0] == "key" for pair in kept.split("&"))
    assert (
        sorted(kept.split("&")) == sorted(pair for pair in raw.split("&") if pair and pair.partition("=")[0] != "key")
        or not kept
    )


def test_members_out_of_the_key_do_not_count_and_unknown_ones_do() -> None:
    out = position.tree(["stream", "user"])
    bare = key.json_body({"model": "m"}, out=out)
    assert key.json_body({"stream": True, "model": "m", "user": "u"}, out=out) == bare
    assert key.json_body({"model": "m", "guided_regex": "x"}, out=out) != bare
    assert key.json_body({"model": "m", "inner": {"user": "u"}}, out=out) != key.json_body(
        {"model": "m", "inner": {}}, out=out
    )


@pytest.mark.parametrize("name", key.ROUTING_HEADERS)
def test_what_routes_is_in_the_key_by_its_hash(name: str) -> None:
    one, other = CIMultiDict({name.title(): "one"}), CIMultiDict({name: "other"})
    assert len({key_of(), key_of(headers=one), key_of(headers=other)}) == 3
    [(kept, value)] = key.header_values(one)
    assert (kept, value) == (name, "sha256:" + hashlib.sha256(b"one").hexdigest())
    assert key.has_routing(one)


def test_the_rest_of_a_gateways_headers_is_transport_unless_the_upstream_names_it() -> None:
    headers = CIMultiDict({"x-portkey-trace-id": "1", "X-Team": "a", "Helicone-Session-Id": "2"})
    assert key_of(headers=headers) == key_of()
    assert key_of(headers=headers, key_headers=("x-team",)) != key_of()
    assert key_of(key_headers=("x-team",)) == key_of()
    assert not key.has_routing(headers)
    assert key.has_routing(headers, ("x-team",))


def part(name: str, content: bytes, *, filename: str | None = None, content_type: str | None = None) -> Part:
    return Part(name=name, filename=filename, content_type=content_type, content=content)


def form(boundary: str, *fields: tuple[str, bytes]) -> tuple[Part, ...]:
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in fields
    )
    parts = parse(body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}")
    assert parts is not None
    return parts


def test_a_form_is_its_parts_whatever_the_boundary_and_the_order_of_names() -> None:
    fields = [("file", b"\x00\xff"), ("model", b"whisper-1")]
    one = key.form_body(form("one", *fields), out_of_key=frozenset())
    assert key.form_body(form("another", *reversed(fields)), out_of_key=frozenset()) == one
    assert key.form_body(form("one", *fields, ("stream", b"true")), out_of_key=frozenset({"stream"})) == one


FORM_PARTS = st.lists(
    st.builds(
        part,
        st.sampled_from(["a", "b", "ab"]),
        st.sampled_from([b"", b"x", b"-", b"y"]),
        filename=st.sampled_from([None, "", "-", "="]),
        content_type=st.sampled_from([None, "", "-", "text/plain"]),
    ),
    max_size=3,
)


@given(FORM_PARTS, FORM_PARTS)
def test_forms_are_equal_only_if_their_parts_are(one: list[Part], other: list[Part]) -> None:
    def by_name(parts: list[Part]) -> list[Part]:
        return sorted(parts, key=lambda part: part.name)

    is_equal = key.form_body(one, out_of_key=frozenset()) == key.form_body(other, out_of_key=frozenset())
    assert is_equal == (by_name(one) == by_name(other))


def test_the_order_of_equal_names_counts() -> None:
    one = key.form_body([part("a", b"1"), part("a", b"2")], out_of_key=frozenset())
    assert key.form_body([part("a", b"2"), part("a", b"1")], out_of_key=frozenset()) != one


def test_the_prompt_hash_is_what_any_tracker_computes() -> None:
    assert key.prompt_hash("Grüße 😀") == hashlib.sha256("Grüße 😀".encode()).hexdigest()
    assert key.prompt_hash("\ud800") != key.prompt_hash("\ud801")


TURNS = st.lists(st.builds(Turn, role=st.sampled_from(["user", "system"]), text=FIELD), max_size=3)


@given(FIELD, TURNS, FIELD, TURNS)
def test_match_keys_are_equal_only_if_model_and_turns_are(
    model: str, turns: list[Turn], other_model: str, other_turns: list[Turn]
) -> None:
    is_same = (model, turns) == (other_model, other_turns)
    assert (key.match_key(model, turns) == key.match_key(other_model, other_turns)) == is_same


@given(st.text(), st.text())
def test_a_match_key_is_never_a_request_key(model: str, text: str) -> None:
    assume(not any("\ud800" <= letter <= "\udfff" for letter in model + text))
    assert key.match_key(model, [Turn(role="user", text=text)]) != key_of(upstream=model, path=text)
