"""Events survive the way over HTTP, and a job's arguments are checked where they arrive."""

from dataclasses import asdict
from decimal import Decimal
from typing import Any

import orjson
import pytest

from kdproxy.core import record
from kdproxy.core.models import Answer, Form, Prompt, Turn, Usage
from kdproxy.engine.ledger import Ledger
from kdproxy.errors import KdproxyError, RequestRefused
from kdproxy.ops import job, wire
from kdproxy.ops.event import Event, Finding, Line, Progress, Result
from kdproxy.ops.forget.withdraw import WithdrawArguments
from kdproxy.ops.stats import totals
from kdproxy.ops.verify import VerifyArguments
from kdproxy.ops.warm.warm import WarmArguments


@pytest.mark.parametrize(
    "event",
    [
        Progress(done_bytes=5, total_bytes=10),
        Finding({"kind": "bad", "line": 3}),
        Result({"lines": 1}),
        Line(b'{"result":{}, "odd":1.50,"sha256":"' + b"0" * 64 + b'"}'),
    ],
)
def test_events_come_back_as_they_went(event: Event) -> None:
    text = wire.dump(event)
    assert text.count(b"\n") == 1
    orjson.loads(text)
    assert wire.load(text) == event


def test_a_journal_line_travels_byte_for_byte(entry: Any) -> None:
    line = record.encode(entry("ünï", b"\xff\x00 \xe2\x80\xa8")).rstrip(b"\n")
    assert wire.load(wire.dump(Line(line))) == Line(line)


def test_an_error_is_raised_where_it_arrives() -> None:
    with pytest.raises(KdproxyError, match=r"^Broken\. Hint: Mend it\.$") as caught:
        wire.load(wire.dump_error(KdproxyError("Broken.", hint="Mend it.", code="broken")))
    assert caught.value.code == "broken"


@pytest.mark.parametrize("text", [b"", b"{}", b"17", b'{"progress":[1]}', b"not json"])
def test_anything_else_is_no_event(text: bytes) -> None:
    with pytest.raises(ValueError):
        wire.load(text)


@pytest.mark.parametrize(
    "arguments",
    [
        WarmArguments(files=("/a", "/b"), model="m", strict=True),
        VerifyArguments(repair=True),
        WithdrawArguments(samples=({"kind": "answer"},), reason="r"),
    ],
)
def test_arguments_come_back_as_they_went(arguments: job.Arguments) -> None:
    members = orjson.loads(orjson.dumps(asdict(arguments)))
    assert job.arguments_of(job.name_of(arguments), members) == arguments


@pytest.mark.parametrize(
    ("name", "members", "message"),
    [
        ("delete", {}, "does not exist"),
        ("warm", [], "not a JSON object"),
        ("warm", {}, "files is missing"),
        ("warm", {"files": "/a"}, "files has the wrong type"),
        ("warm", {"files": [1]}, "files has the wrong type"),
        ("warm", {"files": [], "model": 3}, "model has the wrong type"),
        ("verify", {"repair": 1}, "repair has the wrong type"),
        ("verify", {"everything": True}, "not an argument of verify"),
    ],
)
def test_wrong_arguments_are_refused(name: str, members: Any, message: str) -> None:
    with pytest.raises(RequestRefused, match=message):
        job.arguments_of(name, members)


def test_a_sum_of_which_nothing_is_known_is_unknown(entry: Any) -> None:
    silent = entry("a").answer._replace(usage=None)
    prompt = Prompt(
        namespace="default",
        match_key="0" * 64,
        ordinal=0,
        model="m",
        turns=(Turn(role="user", text="Why?"),),
        response="So.",
        prompt_hash="0" * 64,
        created_at=0.0,
    )
    rows = totals([*(entry(name, cost_usd=None, answer=silent) for name in "ab"), prompt])
    assert [row["answers"] for row in rows] == [2, 1]
    for row in rows:
        assert (row["usd"], row["input_tokens"], row["output_tokens"]) == (None, None, None)
        assert row["unpriced_answers"] == row["uncounted_answers"] == row["answers"]
    assert totals([entry("a", cost_usd="0")])[0]["usd"] == "0"


def test_a_ledger_does_not_call_unknown_money_nothing() -> None:
    ledger = Ledger()
    assert (ledger.as_dict()["bought_usd"], ledger.as_dict()["input_tokens"]) == ("0", 0)
    ledger.bought(input_tokens=None, output_tokens=None, usd=None)
    told = ledger.as_dict()
    assert (told["bought_usd"], told["input_tokens"], told["output_tokens"]) == (None, None, None)
    assert (told["unpriced_answers"], told["uncounted_answers"]) == (1, 1)
    ledger.bought(input_tokens=3, output_tokens=2, usd=Decimal("0.5"))
    told = ledger.as_dict()
    assert (told["bought_usd"], told["input_tokens"], told["output_tokens"]) == ("0.5", 3, 2)


def test_totals_count_unknown_prices_and_tokens_apart(entry: Any) -> None:
    priced, unpriced, other = entry("a"), entry("b", cost_usd=None), entry("c", model="gpt-4.1-mini")
    rows = totals([priced, priced, unpriced, other])
    assert [(row["model"], row["answers"], row["usd"], row["unpriced_answers"]) for row in rows] == [
        ("gpt-4.1", 3, "0.002", 1),
        ("gpt-4.1-mini", 1, "0.001", 0),
    ]
    assert (rows[0]["input_tokens"], rows[0]["output_tokens"]) == (30, 15)


def test_each_answer_without_a_price_has_a_reason(entry: Any) -> None:
    def bought(name: str, usage: Usage | None) -> Any:
        answer = Answer(status=200, headers=(), body=b"{}", form=Form.JSON, usage=usage)
        return entry(name, cost_usd=None, answer=answer)

    plain = Usage(input_tokens=1, output_tokens=1)
    usages = [None, Usage(None, 1), plain, plain._replace(tier="flex"), plain._replace(unpriced="speed fast")]
    usages += [plain._replace(audio_input_tokens=1), plain._replace(tier="standard")]
    (row,) = totals([bought(str(number), usage) for number, usage in enumerate(usages)])
    assert row["unpriced_reasons"] == {
        "no token count": 2,
        "not in the price table": 2,
        "tier flex": 1,
        "speed fast": 1,
        "audio tokens": 1,
    }
    assert row["unpriced_answers"] == 7
