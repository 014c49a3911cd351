"""How long a client waits: seconds of the Python clients, seconds or milliseconds of the JavaScript ones."""

import pytest
from multidict import CIMultiDict

from kdproxy.web.client_timeout import client_timeout


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"X-Stainless-Read-Timeout": "600"}, 600.0),
        ({"x-stainless-read-timeout": "20.5"}, 20.5),
        ({"X-Stainless-Timeout": "60"}, 60.0),
        ({"X-Stainless-Timeout": "600"}, 600.0),
        ({"X-Stainless-Timeout": "60000"}, 60.0),
        ({"X-Stainless-Timeout": "600000"}, 600.0),
        ({"X-Stainless-Timeout": "3600"}, 3600.0),
        ({"X-Stainless-Read-Timeout": "30", "X-Stainless-Timeout": "600"}, 30.0),
        ({"X-Stainless-Read-Timeout": "None", "X-Stainless-Timeout": "10"}, 10.0),
        ({"X-Stainless-Timeout": "0"}, None),
        ({"X-Stainless-Timeout": "-1"}, None),
        ({"X-Stainless-Timeout": "nan"}, None),
        ({"X-Stainless-Timeout": "inf"}, None),
        ({"X-Stainless-Timeout": "soon"}, None),
        ({"X-Stainless-Timeout": "1e12"}, None),
    ],
)
def test_client_timeout_is_read_from_the_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert client_timeout(CIMultiDict(headers)) == seconds
