"""Which stored answers nobody would find, and what to call the upstream that they came from."""

import pytest

from kdproxy.core.models import Upstream
from kdproxy.core.rename import renamed
from kdproxy.core.routing import BUILT_IN, name_of
from kdproxy.settings.upstream import upstreams


def up(url: str, name: str | None = None) -> Upstream:
    return Upstream(name=name or name_of(url), url=url, provider=None)


LOCAL = "http://127.0.0.1:8000/v1"
OLD = {name_of(LOCAL): LOCAL}
COUNTS = {name_of(LOCAL): 10}


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "http://[::1]:8000/v1",
        "http://127.0.0.1:8001/v1",  # another port
        "http://localhost:9000/api/v1",
        "http://vllm.example:8000/v1",  # moved
        "https://api.example.com/v1",
    ],
)
def test_answers_under_a_name_that_is_gone_are_reported_with_what_it_may_be(url: str) -> None:
    [found] = renamed(COUNTS, OLD, [up(url)])
    assert (found.name, found.url, found.answers) == ("127.0.0.1:8000", LOCAL, 10)
    assert found.upstream == up(url)


def test_a_name_that_was_given_or_taken_away_is_the_same_server() -> None:
    [found] = renamed(COUNTS, OLD, [up(LOCAL, "teacher"), up("https://api.example.com/v1")])
    assert found.upstream == up(LOCAL, "teacher")
    [found] = renamed({"teacher": 3}, {"teacher": LOCAL}, [up(LOCAL), up("http://127.0.0.1:9/v1")])
    assert found.upstream == up(LOCAL)


def test_of_several_that_may_be_meant_none_is_guessed() -> None:
    [found] = renamed(COUNTS, OLD, [up("http://localhost:8001/v1"), up("http://localhost:8002/v1")])
    assert found.upstream is None
    assert [found.upstream for found in renamed(COUNTS, OLD, BUILT_IN)] == [None]
    assert [found.upstream for found in renamed({"a": 1, "b": 2}, {}, [up(LOCAL)])] == [None, None]


@pytest.mark.parametrize(
    ("answers", "urls"),
    [
        ({}, [LOCAL]),
        ({"127.0.0.1:8000": 0}, ["http://localhost:8000/v1"]),
        ({"127.0.0.1:8000": 5}, [LOCAL]),
        # Several teachers, one of them not needed today.
        ({"127.0.0.1:8000": 5, "api.example.com:443": 9}, [LOCAL]),
        # The new name has what the old one has, or more: it was bought again, or warmed.
        ({"127.0.0.1:8000": 5, "localhost:8000": 5}, ["http://localhost:8000/v1"]),
    ],
)
def test_nothing_is_reported_where_answers_will_be_found(answers: dict[str, int], urls: list[str]) -> None:
    assert renamed(answers, OLD, [up(url) for url in urls]) == []


def test_one_answer_under_the_new_name_does_not_silence_it() -> None:
    [found] = renamed({"127.0.0.1:8000": 500, "localhost:8000": 1}, OLD, [up("http://localhost:8000/v1")])
    assert (found.answers, found.upstream) == (500, up("http://localhost:8000/v1"))


@pytest.mark.parametrize(
    "url",
    [
        LOCAL,
        "http://[::1]:8000",
        "https://api.example.com/v1",
        "https://gateway.example/openai/deployments/a-b_c.d/v1",
        "http://host:1/a/b%20c/v1",
    ],
)
def test_every_name_that_a_url_gives_can_be_given_to_another(url: str) -> None:
    given = upstreams([f"{name_of(url)}=http://new.example:1/v1"])
    assert [(each.name, each.url) for each in given] == [(name_of(url), "http://new.example:1/v1")]
    given = upstreams({name_of(url): {"url": "http://new.example:1/v1"}})
    assert given[0].name == name_of(url)


@pytest.mark.parametrize("name", ["a b", "", "a/b", "a:", "a:b", "a:1/", "a:1//b", "a:1/..?", "a\n:1", "é:1"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="upstream"):
        upstreams({name: {"url": LOCAL}})
