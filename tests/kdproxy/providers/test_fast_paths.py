"""What is asked first because it is nearly always so: each short way gives what the long one gives."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kdproxy.providers import ending
from kdproxy.providers.base import answer_json, answer_object

VALUES: Any = st.sampled_from([None, False, True, 0, 1, "", "error", "failed", 1000, {}, {"status_code": 1}])
NAMES = st.sampled_from(
    ["error", "type", "object", "success", "error_code", "base_resp", "response", "choices", "id", "usage"]
)
NESTED = VALUES | st.dictionaries(st.sampled_from(["error", "status", "status_code"]), VALUES, max_size=2)


@given(st.dictionaries(NAMES, NESTED | st.lists(NESTED, max_size=2), max_size=4))
def test_an_error_is_found_wherever_it_stands(members: dict[str, Any]) -> None:
    is_error = members.get("object") == "error"
    slowly = (members.get("error") or members) if is_error else ending._named_error(members)
    assert ending.error_in(members) == slowly


def test_a_finish_reason_as_the_list_has_it_means_what_its_usual_spelling_means() -> None:
    for words in (ending.OPENAI, ending.ANTHROPIC, ending.GEMINI, ending.RESPONSES):
        assert [word for word in words if word.strip().lower().replace("-", "_") != word] == []


@given(
    st.tuples(
        st.text(st.sampled_from(" \t\r\n\x0b\x0c\x00\ufeff"), max_size=3).map(str.encode),
        st.sampled_from([b'{"a":1}', b'{"a":NaN}', b'{"a":"\\ud83d"}', b'{"a":"\xff"}', b"[1]", b"[DONE]", b""]),
        st.sampled_from([b"", b" ", b"\n", b"x"]),
    ).map(b"".join)
    | st.binary(max_size=6)
)
def test_an_object_is_recognised_as_parsing_recognises_it(body: bytes) -> None:
    parsed = answer_json(body)
    assert repr(answer_object(body)) == repr(parsed if isinstance(parsed, dict) else None)
