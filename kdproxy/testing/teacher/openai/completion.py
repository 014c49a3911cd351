"""POST completions, the older endpoint that vLLM and base models still live by."""

from typing import Any

from kdproxy.testing.teacher.answer import Json, Reply, Streamed, sse, whole
from kdproxy.testing.teacher.fault import bad_request
from kdproxy.testing.teacher.openai.chat import DONE, FINGERPRINT
from kdproxy.testing.teacher.openai.usage import chat_usage, token_logprob
from kdproxy.testing.teacher.stamp import Stamp

_DEFAULT_MAX_TOKENS = 16


def answer_completion(body: Json, stamp: Stamp) -> Reply:
    if "prompt" not in body:
        raise bad_request("Missing required parameter: 'prompt'.", param="prompt")
    allowed = body.get("max_tokens") or _DEFAULT_MAX_TOKENS
    texts = [stamp.text(index) for index in range(_prompt_count(body["prompt"]) * (body.get("n") or 1))]
    reasons = ["length" if len(tokens) > allowed else "stop" for tokens in texts]
    texts = [tokens[:allowed] for tokens in texts]
    usage = chat_usage(body, sum(map(len, texts)))
    if body.get("stream"):
        return _stream(body, stamp, texts, reasons, usage)
    choices = [
        _choice(body, index, tokens, reason) for index, (tokens, reason) in enumerate(zip(texts, reasons, strict=True))
    ]
    return whole(_head(body, stamp, choices) | {"usage": usage})


def _prompt_count(prompt: Any) -> int:
    """Several prompts may come at once; one list of integers is one prompt in tokens."""
    is_batch = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return len(prompt) if is_batch else 1


def _head(body: Json, stamp: Stamp, choices: list[Json]) -> Json:
    return {
        "id": f"cmpl-{stamp.token}",
        "object": "text_completion",
        "created": stamp.created,
        "model": body["model"],
        "choices": choices,
        "system_fingerprint": FINGERPRINT,
    }


def _choice(body: Json, index: int, tokens: list[str], reason: str | None) -> Json:
    return {
        "text": "".join(tokens),
        "index": index,
        "logprobs": _logprobs(tokens, body.get("logprobs")),
        "finish_reason": reason,
    }


def _logprobs(tokens: list[str], top: int | None) -> Json | None:
    """Return the older shape: parallel lists."""
    if top is None:
        return None
    entries = [token_logprob(token, max(top, 1)) for token in tokens]
    starts = [sum(map(len, tokens[:position])) for position in range(len(tokens))]
    return {
        "tokens": tokens,
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{other["token"]: other["logprob"] for other in entry["top_logprobs"]} for entry in entries],
        "text_offset": starts,
    }


def _stream(body: Json, stamp: Stamp, texts: list[list[str]], reasons: list[str], usage: Json) -> Streamed:
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    silent: Json = {"usage": None} if wants_usage else {}
    lead = tuple(
        sse(_head(body, stamp, [_choice(body, index, [token], None)]) | silent)
        for index, tokens in enumerate(texts)
        for token in tokens
    )
    finish = [
        sse(_head(body, stamp, [_choice(body, index, [], reason)]) | silent) for index, reason in enumerate(reasons)
    ]
    if wants_usage:
        finish.append(sse(_head(body, stamp, []) | {"usage": usage}))
    return Streamed(lead=lead, finish=tuple(finish), terminator=(DONE,))
