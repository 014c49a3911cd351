"""One digest for what turns text into numbers."""

import hashlib
import json
from typing import Any

from trainhooks.errors import ConfigInvalid

_OF_THE_LAST_CALL = frozenset({"padding", "truncation"})


def digest(tokenizer: Any) -> str:
    """Return the SHA-256 of a tokenizer's whole definition where it gives one, else of its vocabulary.

    Args:
        tokenizer: of `tokenizers`, `transformers` or `sentencepiece`, or anything with `get_vocab()`.

    Raises:
        ConfigInvalid: none of these.
    """
    whole = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(whole, "to_str"):
        text = _definition(whole.to_str()).encode()
    elif hasattr(whole, "serialized_model_proto"):
        text = whole.serialized_model_proto()
    elif hasattr(tokenizer, "get_vocab"):
        text = json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()
    else:
        raise ConfigInvalid(
            f"A {type(tokenizer).__name__} has neither a definition nor a vocabulary, so a resume cannot recognise it.",
            hint="Give tokenizer= an object with get_vocab(), or leave it out.",
        )
    return hashlib.sha256(text).hexdigest()


def _definition(text: str) -> str:
    """Drop padding and truncation, which each call sets again."""
    try:
        members = json.loads(text)
    except ValueError:
        return text
    if not isinstance(members, dict):
        return text
    return json.dumps({name: value for name, value in members.items() if name not in _OF_THE_LAST_CALL}, sort_keys=True)
