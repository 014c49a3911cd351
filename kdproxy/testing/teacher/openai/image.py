"""POST images/generations: a real PNG of one pixel, as base64 or behind a URL."""

import base64
import struct
import zlib

from kdproxy.testing.teacher.answer import Json, Reply, Streamed, typed_events, whole
from kdproxy.testing.teacher.fault import bad_request
from kdproxy.testing.teacher.openai.usage import prompt_tokens
from kdproxy.testing.teacher.stamp import Stamp

_TOKENS = 272


def answer_image(body: Json, stamp: Stamp) -> Reply:
    if not body.get("prompt"):
        raise bad_request("Missing required parameter: 'prompt'.", param="prompt")
    count = body.get("n") or 1
    pictures = [base64.b64encode(_png(stamp.noise(3 * count)[3 * i : 3 * i + 3])).decode() for i in range(count)]
    asked = prompt_tokens(body["prompt"])
    usage = {
        "input_tokens": asked,
        "input_tokens_details": {"text_tokens": asked, "image_tokens": 0},
        "output_tokens": _TOKENS * count,
        "total_tokens": asked + _TOKENS * count,
    }
    look = {
        "background": body.get("background") or "opaque",
        "output_format": body.get("output_format") or "png",
        "quality": body.get("quality") or "low",
        "size": body.get("size") or "1024x1024",
    }
    if body.get("stream"):
        return _stream(body, stamp, pictures[0], look, usage)
    if body.get("response_format") == "url":
        data: list[Json] = [{"url": f"https://images.example/{stamp.token}-{i}.png"} for i in range(count)]
    else:
        data = [{"b64_json": picture} for picture in pictures]
    return whole({"created": stamp.created, **look, "data": data, "usage": usage})


def _stream(body: Json, stamp: Stamp, picture: str, look: Json, usage: Json) -> Streamed:
    common = {"created_at": stamp.created, **look, "b64_json": picture}
    partial = [
        {"type": "image_generation.partial_image", "partial_image_index": index, **common}
        for index in range(body.get("partial_images") or 0)
    ]
    done = {"type": "image_generation.completed", **common, "usage": usage}
    return Streamed(lead=typed_events(partial), terminator=typed_events([done]))


def _png(colour: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    row = zlib.compress(b"\0" + colour)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", row) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
