"""The key of version 1 that a request is looked up by is the one that the release before gave it."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from kdproxy.core import key_v1
from kdproxy.core.models import Upstream
from kdproxy.providers.question import Asking, endpoint_of, v1_key

FILE = Path(__file__).parents[2] / "data" / "keys_v1.json"
ROWS: list[dict[str, Any]] = [
    row
    for row in json.loads(FILE.read_text("utf-8"))
    if (endpoint := endpoint_of("POST", row["request"]["path"])) is not None
    and frozenset(row["request"]["out_of_key"]) == key_v1.OUT_OF_KEY.get((endpoint.provider, endpoint.name))
    and row["request"]["method"].upper() == "POST"
]


def asking(row: dict[str, Any], **more: str) -> Asking:
    request = row["request"]
    return Asking(
        upstream=Upstream(name=request["upstream"], url="http://u", key_headers=("x-team",)),
        path=request["path"],
        query=request["query"],
        headers=CIMultiDict([*request["headers"], ("Content-Type", request["content_type"]), *more.items()]),
        body=request["body"].encode() if "body" in request else base64.b64decode(request["body_base64"]),
    )


def test_there_are_many() -> None:
    assert len(ROWS) > 60


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_it_is_the_golden_one(row: dict[str, Any]) -> None:
    endpoint = endpoint_of("POST", row["request"]["path"])
    assert endpoint is not None
    assert v1_key(endpoint, asking(row)) == row["key"]


@pytest.mark.parametrize("header", ["x-portkey-config", "Helicone-Target-URL", "X-Team"])
def test_there_is_none_where_only_the_current_key_holds_a_header(header: str) -> None:
    endpoint = endpoint_of("POST", ROWS[0]["request"]["path"])
    assert endpoint is not None
    assert v1_key(endpoint, asking(ROWS[0], **{header: "a"})) is None


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/responses/compact", "/v1/images/edits", "/v1beta/interactions"])
def test_there_is_none_where_the_endpoint_had_no_keys(path: str) -> None:
    endpoint = endpoint_of("POST", path)
    assert endpoint is not None
    assert v1_key(endpoint, asking(ROWS[0])._replace(path=path)) is None
