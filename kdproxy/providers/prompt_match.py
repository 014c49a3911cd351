"""Matches recorded prompts with the requests that their text answers in full.

A text alone is not a full answer if the request fixes where it ends (`stop`) or what it may contain (`logit_bias`, a
format, a grammar), or asks for more than one text. An unknown member may do so, so then only an exact entry answers.
Length and randomness settings are ignored; `Cache-Status` names them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kdproxy.core import key
from kdproxy.core.models import Question, Turn
from kdproxy.core.position import is_credential
from kdproxy.providers.base import Ask
from kdproxy.providers.question import endpoint_named

_IGNORED = frozenset(
    {
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "maxoutputtokens"),
        *("temperature", "seed", "top_p", "top_k", "min_p", "top_a", "typical_p", "topp", "topk"),
        *("frequency_penalty", "presence_penalty", "repetition_penalty", "frequencypenalty", "presencepenalty"),
        *("reasoning_effort", "reasoning", "verbosity", "service_tier", "speed", "thinkingconfig"),
        *("safetysettings", "safety_settings"),
    }
)
"""Length, randomness, effort and price: names in lower case, Gemini's without underscores."""

_READ = frozenset(
    {
        *("model", "messages", "input", "instructions", "system", "contents", "systeminstruction"),
        *("system_instruction", "generationconfig", "generation_config"),
        # `turns` has checked that these request only one text
        *("n", "response_format", "modalities", "text", "candidatecount", "candidate_count", "responsemimetype"),
        *("response_mime_type", "responsemodalities", "response_modalities"),
        # without tools these have no effect
        *("tool_choice", "toolconfig", "tool_config", "parallel_tool_calls", "truncation", "prompt_logprobs"),
    }
)


class Match(NamedTuple):
    """How a recorded prompt matches a question."""

    model: str = ""
    turns: tuple[Turn, ...] = ()
    """The conversation; empty if it is not text only."""
    is_text_alone: bool = False
    """Whether a text alone is a full answer."""
    ignored: tuple[str, ...] = ()
    """Members that a recorded prompt ignores."""

    @property
    def match_key(self) -> str | None:
        """SHA-256 of model and conversation; None if only an exact entry may answer."""
        return key.match_key(self.model, self.turns) if self.turns and self.is_text_alone else None

    @property
    def prompt_hash(self) -> str | None:
        """SHA-256 of the prompt's text, without a system text before it; None if the question is not one text."""
        return _hash_of(self.turns)


def prompt_hash(question: Question, *, path: str, query: str, members: Mapping[str, Any] | None) -> str | None:
    """Return only `Match.prompt_hash`: each entry needs it, and it takes a third of the time of a match."""
    endpoint = endpoint_named(question.provider, question.endpoint)
    if endpoint.takes_form or question.model is None or members is None:
        return None
    return _hash_of(endpoint.turns(Ask(path=path, query=query, members=members)) or ())


def _hash_of(turns: tuple[Turn, ...]) -> str | None:
    asked = [turn for turn in turns if turn.role != "system"]
    return key.prompt_hash(asked[0].text) if len(asked) == 1 and asked[0].role == "user" else None


def match(question: Question, *, path: str, query: str, members: Mapping[str, Any] | None) -> Match:
    """Read how a recorded prompt may match a question. Only a miss needs it."""
    endpoint = endpoint_named(question.provider, question.endpoint)
    if endpoint.takes_form or question.model is None or members is None:
        return Match()
    turns = endpoint.turns(Ask(path=path, query=query, members=members)) or ()
    ignored: list[str] = []
    is_text_alone = True
    for name in _asked(members, out=endpoint.members.out_fields):
        if name.lower() in _IGNORED:
            ignored.append(name)
        else:
            is_text_alone = is_text_alone and name.lower() in _READ
    return Match(model=question.model, turns=turns, is_text_alone=is_text_alone, ignored=tuple(ignored))


def _asked(members: Mapping[str, Any], *, out: frozenset[str]) -> Iterator[str]:
    """Yield the members that ask for something, including those of Gemini's configuration."""
    for name, value in members.items():
        if name in ("generationConfig", "generation_config") and isinstance(value, dict):
            yield from _asked(value, out=frozenset())
        elif name not in out and not is_credential(name) and value not in (None, "", [], {}) and value is not False:
            yield name
