"""NO_PROXY as curl, Go and requests read it: one row an entry."""

import pytest

from kdproxy.upstream.environment import EnvironmentProxy

DIRECT = {
    "10.0.0.0/8": "http://10.1.2.3:8000/v1",
    "10.1.2.3/8": "http://10.9.9.9/v1",
    "fd00::/8": "http://[fd12::1]:8000/v1",
    "[::1]": "http://[::1]:8000/v1",
    "[fd00::/8]": "http://[fd12::1]/v1",
    "192.168.1.7": "http://192.168.1.7/v1",
    "a.example, 172.16.0.0/12": "https://172.31.0.1/v1",
    ".lab.example": "https://gpu.lab.example/v1",
    "*": "https://10.1.2.3/v1",
}
PROXIED = {
    "10.0.0.0/8": "http://11.1.2.3/v1",
    "0.0.0.0/0": "http://[fd12::1]/v1",
    "10.0.0.0/33": "http://10.0.0.1/v1",
    "::/0": "http://10.0.0.1/v1",
    "127.0.0.0/8": "http://localhost/v1",
}


def set_up(monkeypatch: pytest.MonkeyPatch, entries: str) -> EnvironmentProxy:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", entries)
    return EnvironmentProxy()


@pytest.mark.parametrize("entries", DIRECT)
def test_it_goes_past_the_proxy(monkeypatch: pytest.MonkeyPatch, entries: str) -> None:
    assert set_up(monkeypatch, entries).of(DIRECT[entries]) is None


@pytest.mark.parametrize("entries", PROXIED)
def test_it_goes_over_the_proxy(monkeypatch: pytest.MonkeyPatch, entries: str) -> None:
    assert set_up(monkeypatch, entries).of(PROXIED[entries]) == "http://127.0.0.1:3128"
