"""Estimates a request's cost in tokens before it is sent; the counts in answers correct the estimate.

OpenAI and Azure count characters / 4 and max_tokens when a request arrives; Anthropic charges max_tokens in advance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdproxy.core.limits import Cost
from kdproxy.core.models import Usage

CHARACTERS_PER_TOKEN = 4.0
OPAQUE_TOKENS = 1_000.0
"""An image or a file inlined as base64: its length says nothing about its tokens."""
_OPAQUE_FROM = 2_048
_OUTPUT_NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_OUTPUT_SET = frozenset(_OUTPUT_NAMES)
_INPUT_NAMES = ("messages", "prompt", "input", "system", "instructions", "tools", "contents", "systemInstruction")


@dataclass(slots=True)
class OutputGuess:
    """Learned length of answers, for requests without a limit."""

    tokens: float = 256.0

    def learn(self, usage: Usage) -> None:
        """Take the output tokens of an answer."""
        if usage.output_tokens is not None:
            self.tokens += 0.05 * (usage.output_tokens - self.tokens)


def cost_of(members: Mapping[str, Any] | None, guess: OutputGuess, *, body_bytes: int) -> Cost:
    """Estimate a request from its members; a request that is not JSON (None) costs its length in characters."""
    if members is None:
        return Cost(input_tokens=min(body_bytes / CHARACTERS_PER_TOKEN, OPAQUE_TOKENS))
    given = 0.0
    for name in _INPUT_NAMES:
        if name in members:
            given += _given(members[name])
    bound = _output_bound(members)
    answers = 1
    if "n" in members or "best_of" in members:
        answers = max(_count(members.get("n")) or 1, _count(members.get("best_of")) or 1)
    return Cost(input_tokens=given, output_tokens=(guess.tokens if bound is None else float(bound)) * answers)


def used_of(usage: Usage | None) -> Cost | None:
    """Return an answer's cost by the provider's own count, or None."""
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    return Cost(input_tokens=float(usage.input_tokens or 0), output_tokens=float(usage.output_tokens or 0))


def _given(value: Any) -> float:
    """Return the tokens of all text in a value.

    No generators: it runs for every miss. No recursion: an uncached body may be nested a thousand levels deep.
    """
    characters, opaque = 0, 0
    rest = [value]
    for each in rest:  # which grows meanwhile
        kind = type(each)
        if kind is str:
            size = len(each)
            if each[:5] == "data:" or (size >= _OPAQUE_FROM and " " not in each[:_OPAQUE_FROM]):
                opaque += 1
            else:
                characters += size
        elif kind is list:
            rest += each
        elif kind is dict:
            rest += each.values()
    return characters / CHARACTERS_PER_TOKEN + opaque * OPAQUE_TOKENS


def _output_bound(members: Mapping[str, Any]) -> int | None:
    for name in () if _OUTPUT_SET.isdisjoint(members) else _OUTPUT_NAMES:
        if (found := _count(members.get(name))) is not None:
            return found
    generation = members.get("generationConfig")
    return _count(generation.get("maxOutputTokens")) if isinstance(generation, dict) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 10_000_000 else None
