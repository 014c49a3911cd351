"""POST embeddings: vectors of unit length that depend on the input alone, as floats or base64."""

import base64
import hashlib
import math
import struct
from typing import Any

from kdproxy.testing.teacher.answer import Json, Reply, whole
from kdproxy.testing.teacher.fault import bad_request
from kdproxy.testing.teacher.openai.usage import prompt_tokens
from kdproxy.testing.teacher.stamp import Stamp

_DIMENSIONS = 32


def answer_embedding(body: Json, stamp: Stamp) -> Reply:
    """Answer without the stamp: at the provider too, equal questions get equal vectors."""
    if not body.get("input"):
        raise bad_request("'$.input' is invalid.", param="input")
    dimensions = body.get("dimensions") or _DIMENSIONS
    is_packed = body.get("encoding_format") == "base64"
    vectors = [vector_of(repr(item), dimensions) for item in _inputs(body["input"])]
    data = [
        {"object": "embedding", "index": index, "embedding": pack(vector) if is_packed else vector}
        for index, vector in enumerate(vectors)
    ]
    tokens = prompt_tokens(body["input"])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return whole({"object": "list", "data": data, "model": body["model"], "usage": usage})


def _inputs(value: Any) -> list[Any]:
    """A string or a list of integers is one input, a list of these is several."""
    if isinstance(value, list) and not isinstance(value[0], int):
        return value
    return [value]


def vector_of(text: str, dimensions: int) -> list[float]:
    noise = hashlib.shake_256(text.encode(errors="surrogatepass")).digest(2 * dimensions)
    numbers = [value / 32768 - 1 for (value,) in struct.iter_unpack("<H", noise)]
    length = math.sqrt(sum(number * number for number in numbers))
    # Rounded to single precision first, so that both encodings carry the same numbers.
    return list(struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *(n / length for n in numbers))))


def pack(vector: list[float]) -> str:
    """Write little-endian float32 in base64, what the official client asks for when numpy is there."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
