"""Finish reasons of each provider, and errors that arrive inside a 200. Pure.

One rule for JSON and streams: a finish reason proves an end only if the provider's list has it as an end. A word for an
error, in upper or lower case, proves that the answer failed. Null, empty, false and words without meaning ("null",
"unknown", OTHER) prove nothing. Any other new word is accepted as an end, and reported so that the engine logs it once.

Sources, read 2026-11: OpenAI API reference (chat, completions); vLLM `FinishReason` (stop, length, abort, error,
repetition); SGLang (stop, length, abort); Mistral (model_length, error); DeepSeek (insufficient_system_resource); Z.ai
(sensitive, network_error); Together (eos); OpenRouter (error, native_finish_reason); Cohere compatibility (COMPLETE,
MAX_TOKENS, ERROR_TOXIC); Ollama (`done_reason` load and unload); Anthropic `stop_reason`; Gemini `FinishReason` and
`BlockReason` (v1beta and Vertex AI).
"""

import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any


class Ending(Enum):
    """What a finish reason means."""

    ENDED = auto()
    """The model, a stop word or a requested limit ended it."""
    REFUSED = auto()
    """A policy ended it: the answer is whole, even if it is empty."""
    FAILED = auto()
    """The server or the model failed."""
    UNKNOWN = auto()
    """A word that is in no list."""
    MISSING = auto()
    """No word, or one without meaning."""


def _words(ended: str, refused: str, failed: str = "") -> dict[str, Ending]:
    return {
        **dict.fromkeys(ended.split(), Ending.ENDED),
        **dict.fromkeys(refused.split(), Ending.REFUSED),
        **dict.fromkeys(failed.split(), Ending.FAILED),
    }


OPENAI = _words(
    ended="stop length tool_calls function_call eos eos_token stop_sequence stop_token stop_string stop_str end_turn "
    "end_of_turn tool_use tool_call max_tokens max_length max_output_tokens max_new_tokens model_length token_limit "
    "complete completed normal repetition pause_turn model_context_window_exceeded",
    refused="content_filter content_filtered refusal safety recitation sensitive prohibited_content blocklist spii "
    "guardrail_intervened",
    failed="load unload",
)
"""Words of OpenAI and compatible servers; gateways also pass on the words of other providers."""

ANTHROPIC = _words(
    ended="end_turn max_tokens stop_sequence tool_use pause_turn model_context_window_exceeded compaction",
    refused="refusal",
)

GEMINI = _words(
    ended="stop max_tokens language",
    refused="safety recitation blocklist prohibited_content spii image_safety image_prohibited_content "
    "image_recitation model_armor",
    failed="malformed_function_call malformed_response unexpected_tool_call too_many_tool_calls "
    "missing_thought_signature no_image image_other",
)

RESPONSES = _words(ended="max_output_tokens max_tokens max_tool_calls", refused="content_filter")
"""Of `incomplete_details.reason`."""

_SAY_NOTHING = frozenset({"", "null", "none", "unknown", "other", "unspecified", "finish_reason_unspecified"})

_ERROR = re.compile(
    r"error|abort|cancel|time_?d?_?-?out|fail|over_?load|insufficient|interrupt|disconnect|expired|unavailable|preempt"
    r"|kill|crash|exception|incomplete|in_progress|malformed|invalid|out_of_memory|shut_?down|evict|terminated"
)


def ending_of(reason: Any, words: Mapping[str, Ending]) -> Ending:
    """Return the meaning of a finish reason in a provider's list."""
    if not isinstance(reason, str):
        # Null and false mean no reason; an object or a number is never in a list.
        return Ending.MISSING
    known = words.get(reason)  # nearly always as the list has it
    if known is not None:
        return known
    word = reason.strip().lower().replace("-", "_")
    known = words.get(word)
    if known is not None:
        return known
    if word in _SAY_NOTHING:
        return Ending.MISSING
    return Ending.FAILED if _ERROR.search(word) else Ending.UNKNOWN


def is_failure(reason: Any) -> bool:
    """Whether a word beside the finish reason (`native_finish_reason`) means an error."""
    return isinstance(reason, str) and _ERROR.search(reason.lower()) is not None


_FAILED_STATUSES = frozenset({"failed", "cancelled", "canceled", "expired"})


def error_in(members: Mapping[str, Any]) -> Any:
    """Return the error that a body or an event inside a 200 carries; None if it has no error.

    OpenAI, Google and gateways: `error`; Anthropic: `type` error; older vLLM: `object` error; Baidu: `error_code`;
    MiniMax: `base_resp`; Cloudflare: `success` false; Responses: a `response` that failed; OpenRouter: a choice's
    `error`. Empty values (null, false, "", 0, {}) do not count.
    """
    if members.get("object") == "error":
        return members.get("error") or members
    # Nearly all bodies and events have none of these: one look instead of six.
    return _choice_error(members) if _HOLDERS.isdisjoint(members) else _named_error(members)


_HOLDERS = frozenset({"error", "type", "success", "error_code", "base_resp", "response"})


def _named_error(members: Mapping[str, Any]) -> Any:
    if error := members.get("error"):
        return error
    if members.get("type") == "error" or members.get("success") is False:
        return members
    if members.get("error_code") not in _NO_CODE:
        return members
    if "base_resp" in members and _member(members["base_resp"], "status_code") not in _NO_CODE:
        return members
    response = members.get("response")
    if isinstance(response, dict) and (response.get("error") or str(response.get("status")) in _FAILED_STATUSES):
        return response.get("error") or response
    return _choice_error(members)


def _choice_error(members: Mapping[str, Any]) -> Any:
    choices = members.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("error"):
            return choice["error"]
    return None


_NO_CODE = (None, "", 0, "0", False)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


_LABELS = frozenset({"role", "type", "id", "index", "format", "object", "status", "annotations"})
"""Members that are labels, not content."""


def says(value: Any) -> bool:
    """Whether a message, a delta or a part of one has content: any text that is not a label."""
    if isinstance(value, str):
        return bool(value)
    # Runs for each event of a stream: loops, since a generator costs more than this whole function.
    if isinstance(value, dict):
        for name, member in value.items():
            if member and name not in _LABELS and says(member):
                return True
    elif isinstance(value, list):
        for item in value:
            if item and says(item):
                return True
    return False
