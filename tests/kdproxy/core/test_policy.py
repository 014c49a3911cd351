"""Modes: what each does, and how a request names one."""

import pytest
from multidict import CIMultiDict

from kdproxy.core.policy import Mode, mode_of
from kdproxy.errors import RequestRefused

READS = {Mode.CACHE, Mode.REPLAY}
BUYS = {Mode.CACHE, Mode.REFRESH, Mode.RECORD, Mode.BYPASS}
STORES = {Mode.CACHE, Mode.REFRESH, Mode.RECORD}


@pytest.mark.parametrize("mode", Mode)
def test_what_a_mode_does(mode: Mode) -> None:
    assert (mode.reads, mode.buys, mode.stores) == (mode in READS, mode in BUYS, mode in STORES)


@pytest.mark.parametrize(
    ("headers", "mode"),
    [
        ([], Mode.CACHE),
        ([("Cache-Control", "no-cache")], Mode.REFRESH),
        ([("Cache-Control", "no-store")], Mode.BYPASS),
        ([("Cache-Control", "only-if-cached")], Mode.REPLAY),
        ([("cache-control", " No-Cache ")], Mode.REFRESH),
        ([("Cache-Control", "no-cache, no-store")], Mode.BYPASS),
        ([("Cache-Control", "no-store, only-if-cached, no-cache")], Mode.REPLAY),
        ([("Cache-Control", "no-cache"), ("Cache-Control", "no-store")], Mode.BYPASS),
        ([("Cache-Control", "max-age=0, must-revalidate, no-transform")], Mode.CACHE),
        ([("Cache-Control", "")], Mode.CACHE),
        ([("Pragma", "no-cache")], Mode.CACHE),
        ([("Kdproxy-Mode", "record")], Mode.RECORD),
        ([("kdproxy-mode", " Replay ")], Mode.REPLAY),
        ([("Kdproxy-Mode", "cache"), ("Cache-Control", "no-store")], Mode.CACHE),
    ],
)
def test_a_request_names_its_mode(headers: list[tuple[str, str]], mode: Mode) -> None:
    assert mode_of(CIMultiDict(headers), Mode.CACHE) == mode


@pytest.mark.parametrize("default", Mode)
def test_without_a_declaration_the_default_holds(default: Mode) -> None:
    assert mode_of(CIMultiDict(), default) == default
    assert mode_of(CIMultiDict({"Cache-Control": "max-age=0"}), default) == default


@pytest.mark.parametrize(
    "headers", [{"Kdproxy-Mode": mode} for mode in Mode] + [{"Cache-Control": "no-cache"}], ids=str
)
def test_a_client_cannot_talk_a_replaying_proxy_into_spending(headers: dict[str, str]) -> None:
    assert mode_of(CIMultiDict(headers), Mode.REPLAY) is Mode.REPLAY


@pytest.mark.parametrize("default", Mode)
@pytest.mark.parametrize("name", ["", "cached", "cache,replay"])
def test_an_unknown_mode_is_refused_with_the_list(name: str, default: Mode) -> None:
    with pytest.raises(RequestRefused) as caught:
        mode_of(CIMultiDict({"Kdproxy-Mode": name}), default)
    assert caught.value.code == "unknown_mode"
    assert all(mode in caught.value.hint for mode in Mode)
