"""Lists of models that differ only in what a server makes up for each answer."""

import orjson
import pytest

from kdproxy.providers.models_list import same_models


def vllm(created: int, *names: str, length: int = 4_096) -> bytes:
    permission = [{"id": f"modelperm-{created}", "created": created, "allow_sampling": True}]
    models = [
        {"id": name, "object": "model", "created": created, "max_model_len": length, "permission": permission}
        for name in names
    ]
    return orjson.dumps({"object": "list", "data": models})


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        (vllm(1, "a"), vllm(2, "a"), True),
        (vllm(1, "a", "b"), vllm(2, "b", "a"), True),
        (vllm(1, "a"), vllm(1, "a", "b"), False),
        (vllm(1, "a"), vllm(1, "a", length=8), False),
        (vllm(1, "a"), vllm(1, "b"), False),
        (b'{"models":[{"name":"a","modified_at":"x"}]}', b'{"models":[{"name":"a","modified_at":"y"}]}', True),
        (b"not JSON", b"not JSON", True),
        (b"not JSON", vllm(1, "a"), False),
        (b'{"data":[1,"a",null,[2]]}', b'{"data":[[2],null,"a",1]}', True),
    ],
)
def test_same_models(one: bytes, other: bytes, are_same: bool) -> None:
    assert same_models(one, other) is same_models(other, one) is are_same
