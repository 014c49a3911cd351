"""Token counts and log probabilities; a token is a word."""

import hashlib
import math

from kdproxy.testing.teacher.answer import Json
from kdproxy.testing.teacher.stamp import texts_of, tokens_of

_OVERHEAD_TOKENS = 7


def prompt_tokens(*parts: object) -> int:
    return _OVERHEAD_TOKENS + sum(len(tokens_of(text)) for part in parts for text in texts_of(part))


def chat_usage(body: Json, produced: int, reasoned: int = 0) -> Json:
    asked = prompt_tokens(body.get("messages"), body.get("prompt"))
    return {
        "prompt_tokens": asked,
        "completion_tokens": produced,
        "total_tokens": asked + produced,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoned,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def token_logprob(token: str, top: int) -> Json:
    """Return one token's log probability with its `top` alternatives, the token itself first.

    The token has 0.5 to 0.9, each alternative half of what is left by those before it: some is left for the others.
    """
    likely = 0.5 + 0.4 * _fraction(token)
    best = _entry(token, math.log(likely))
    rest = [_entry(f" alt{rank}", math.log((1 - likely) / 2**rank)) for rank in range(1, top)]
    return best | {"top_logprobs": [best, *rest] if top else []}


def _entry(token: str, logprob: float) -> Json:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48
