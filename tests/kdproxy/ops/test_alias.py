"""Answers bought under keys of version 1 get a seat under the key that they have today, once."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from kdproxy.core import record
from kdproxy.core.ignore import parse
from kdproxy.core.models import Address, Entry, Form, Question, Upstream
from kdproxy.ops.alias import NOTE, Aliases, AliasThread, fingerprint, start_of
from kdproxy.ops.export import ExportArguments
from kdproxy.ops.forget.choose import Wish, choose
from kdproxy.ops.forget.withdraw import WithdrawArguments
from kdproxy.ops.verify import VerifyArguments
from kdproxy.ops.warm.warm import WarmArguments
from kdproxy.providers.question import Asking, endpoint_named, read, v1_key
from kdproxy.providers.rekey import v2_key_of

UPSTREAM = Upstream(name="openai", url="https://api.openai.com/v1")
CHAT = endpoint_named("openai", "chat.completions")


def asking(session: str, text: str = "Why?", *, upstream: Upstream = UPSTREAM, query: str = "") -> Asking:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "session_id": session}
    return Asking(
        upstream=upstream, path="/v1/chat/completions", query=query, headers={}, body=json.dumps(body).encode()
    )


def current(asked: Asking) -> Address:
    found = read(CHAT, asked)
    assert isinstance(found, Question)
    return Address("default", found.key)


@pytest.fixture
def old(entry: Callable[..., Entry], as_v1: Callable[[Entry], bytes]) -> Callable[..., bytes]:
    """Make the line that an earlier release wrote of a request."""

    def old(asked: Asking, body: bytes, **members: Any) -> bytes:
        key = v1_key(CHAT, asked)
        assert key is not None
        found = entry("", body, request=orjson.loads(asked.body), query=asked.query, **members)
        return as_v1(found._replace(address=Address("default", key), request=asked.body))

    return old


def one_pass(shelf: Any, upstream: Upstream = UPSTREAM) -> tuple[int, int]:
    aliases = Aliases(shelf.archive, {upstream.name: upstream}, lambda: 5.0)
    list(aliases.steps(None))
    return aliases.seated, aliases.further


def test_what_version_1_distinguished_becomes_samples_of_one_question_in_their_order(
    shelf: Any, old: Callable[..., bytes], write: Callable[..., str]
) -> None:
    sessions = [asking("a"), asking("b"), asking("c"), asking("a", "Who?")]
    lines = [old(asked, b'{"n":%d}' % number) for number, asked in enumerate(sessions)]
    lines.append(old(asking("d"), b"data: x\n\n", form=Form.SSE))
    shelf.run(WarmArguments(files=(write("old", *lines),)))
    assert shelf.archive.has_v1_keys
    key = current(asking("another"))
    assert shelf.archive.find(key, Form.JSON) is None
    assert one_pass(shelf) == (5, 2)
    bodies = [shelf.archive.find(key._replace(ordinal=ordinal), Form.JSON) for ordinal in range(4)]
    assert [answer and answer.body for answer in bodies] == [b'{"n":0}', b'{"n":1}', b'{"n":2}', None]
    streamed = shelf.archive.find(key, Form.SSE)
    assert (streamed and streamed.body) == b"data: x\n\n", "another form takes no seat away"
    before = shelf.journal()
    assert one_pass(shelf) == (0, 0), "a second pass has nothing to do"
    assert shelf.journal() == before
    assert shelf.run(VerifyArguments()).result["problems"] == 0
    exported = shelf.run(ExportArguments()).lines
    assert sum(b'"kind":"seat"' in line for line in exported) == 5


def test_seats_go_with_an_export_and_end_with_what_they_seat(
    make_shelf: Any, old: Callable[..., bytes], write: Callable[..., str], as_v1: Any, tombstone: Any
) -> None:
    source = make_shelf("source")
    line = old(asking("a"), b'{"n":0}')
    source.run(WarmArguments(files=(write("old", line),)))
    one_pass(source)
    exported = source.run(ExportArguments()).lines
    target = make_shelf("target")
    target.run(WarmArguments(files=(write("export", *(text + b"\n" for text in exported)),)))
    assert target.run(ExportArguments()).lines == exported
    assert target.archive.find(current(asking("z")), Form.JSON) is not None
    home = record.decode(line)
    assert isinstance(home, Entry)
    ending = as_v1(replace(tombstone("x"), key=home.address.key))
    target.run(WarmArguments(files=(write("ending", line, ending),)))
    assert target.archive.find(current(asking("z")), Form.JSON) is None
    assert target.archive.find(home.address, Form.JSON) is None
    assert one_pass(target) == (0, 0), "what was withdrawn gets no seat"


def test_a_pass_continues_where_the_last_one_ended_unless_settings_changed(
    shelf: Any, old: Callable[..., bytes], write: Callable[..., str]
) -> None:
    shelf.run(WarmArguments(files=(write("old", old(asking("a", "day 1: Why?"), b'{"n":0}')),)))
    AliasThread(shelf.archive, [UPSTREAM], lambda: 5.0)._pass()
    [noted] = shelf.archive.look_up([NOTE])
    end = shelf.archive.snapshot().end
    assert start_of(noted, fingerprint([UPSTREAM])) is not None
    assert (json.loads(noted)[0], json.loads(noted)[1] < end.offset) == (1, True), "its own seats came behind"
    ignoring = UPSTREAM._replace(ignore=(parse("messages[0].content~day [0-9]: "),))
    assert start_of(noted, fingerprint([ignoring])) is None
    AliasThread(shelf.archive, [ignoring], lambda: 5.0)._pass()
    assert shelf.archive.find(current(asking("b", "day 2: Why?", upstream=ignoring)), Form.JSON) is not None
    assert shelf.archive.find(current(asking("b", "day 2: Why?")), Form.JSON) is None


def test_forget_takes_the_key_that_replies_name_today(
    shelf: Any, old: Callable[..., bytes], write: Callable[..., str]
) -> None:
    shelf.run(WarmArguments(files=(write("old", old(asking("a"), b'{"n":0}'), old(asking("a", "Who?"), b"{}")),)))
    found = choose(shelf.run(ExportArguments()).lines, Wish(key=current(asking("b")).key))
    assert [chosen.asked for chosen in found] == ["Why?"]
    shelf.run(WithdrawArguments(samples=tuple(chosen.sample for chosen in found), reason="test"))
    assert one_pass(shelf) == (1, 0)
    assert shelf.archive.find(current(asking("b")), Form.JSON) is None


# -- which lines can be given a current key ---------------------------------------------------------------------------


def test_a_line_that_does_not_give_its_own_key_any_more_gets_none(old: Callable[..., bytes]) -> None:
    whole = record.decode(old(asking("a"), b"{}"))
    assert isinstance(whole, Entry)
    assert v2_key_of(whole, UPSTREAM) == current(asking("a")).key
    for changed in (
        whole._replace(address=Address("default", "ab" * 32)),
        whole._replace(request=None),
        whole._replace(request=b"{"),
        whole._replace(query="*"),
        whole._replace(upstream="other"),
        whole._replace(request_headers=(("openai-beta", "x"),)),
        whole._replace(endpoint="models"),
        whole._replace(provider="none"),
        whole._replace(method="GET"),
        whole._replace(key_version=2),
    ):
        assert v2_key_of(changed) is None
