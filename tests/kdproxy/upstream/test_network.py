"""A name that does not exist, told from a network that is away."""

import socket
from typing import Any

import pytest

from kdproxy.upstream import network


def _gaierror(number: int) -> socket.gaierror:
    return socket.gaierror(number, "as the C library words it")


@pytest.mark.parametrize(
    ("error", "has_route", "is_unknown"),
    [
        (_gaierror(socket.EAI_NONAME), True, True),
        (_gaierror(socket.EAI_NONAME), False, False),  # macOS without a network says so of every name
        (_gaierror(socket.EAI_AGAIN), True, False),
        (_gaierror(socket.EAI_FAIL), True, False),
        (OSError(None, "a resolver of another kind"), True, False),
        (OSError(socket.EAI_NONAME, "the same number of another family"), True, False),
    ],
    ids=str,
)
def test_a_name_is_unknown_only_where_dns_says_so(
    monkeypatch: pytest.MonkeyPatch, error: OSError, has_route: bool, is_unknown: bool
) -> None:
    monkeypatch.setattr(network, "has_route", lambda: has_route)
    assert network.is_unknown_name("teacher.example.com", error) is is_unknown
    assert network.is_unknown_name("teacher.invalid", error)


def test_a_machine_without_a_route_has_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(101, "Network is unreachable")

    class Unreachable(socket.socket):
        connect = refuse

    monkeypatch.setattr(socket, "socket", Unreachable)
    assert not network.has_route()
