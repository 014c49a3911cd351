"""What makes one answer different from another: the call counter and digests of the question."""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kdproxy.testing.teacher.call import TeacherCall

TOOL_MARKER = "call the tool"
"""A last user message that holds this gets a tool call, if tools were given."""

_PROMPT_MEMBERS = (
    "system",
    "systemInstruction",
    "instructions",
    "messages",
    "contents",
    "content",
    "prompt",
    "input",
)
_TEXT_MEMBERS = ("text", "content", "parts", "output")
_TRANSPORT_MEMBERS = ("stream", "stream_options")
_FIXED_TIME = 1_767_225_600  # 2026-01-01, the `created` of deterministic answers
# Not ASCII on purpose: bytes must come through, not characters that look alike.
_WORDS = (
    *("naïve", "café", "—", "the", "quick", "brown", "fox’s", "狐", "jumps", "over"),
    *("“lazy”", "dogs;", "then", "a/b", "<c>", "&", "\\d", "🦊", "sleeps"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Marks all that one answer carries: ids, text, vectors."""

    serial: str
    """The call's number, or the request's digest where answers are deterministic."""
    digest: str
    """`prompt_digest` of the question's text."""
    created: int
    """UTC Unix seconds."""
    words: int
    """How long a text is that no limit cuts."""

    @property
    def token(self) -> str:
        return f"{self.serial}x{self.digest}"

    def text(self, choice: int = 0) -> list[str]:
        """Return the answer's text in tokens, each but the first with its leading space."""
        start = int(self.digest, 16) + choice
        words = (_WORDS[(start + i) % len(_WORDS)] for i in range(self.words))
        label = self.serial if choice == 0 else f"{self.serial}.{choice}"
        return tokens_of(" ".join([f"Answer {label} to {self.digest}:", *words]))

    def noise(self, size_bytes: int) -> bytes:
        """Return bytes that look random and depend on the stamp alone."""
        return hashlib.shake_256(self.token.encode()).digest(size_bytes)


def stamp_of(call: TeacherCall, *, deterministic: bool, words: int) -> Stamp:
    digest = prompt_digest(prompt_text(call))
    if deterministic:
        return Stamp(serial=_request_digest(call), digest=digest, created=_FIXED_TIME, words=words)
    return Stamp(serial=str(call.number), digest=digest, created=int(time.time()), words=words)


def tokens_of(text: str) -> list[str]:
    """Cut text into tokens: a word and the white space before it."""
    return re.findall(r"\s*\S+", text)


def prompt_digest(text: str) -> str:
    """Return the digest by which an answer names its prompt: its texts, joined by newlines."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def prompt_text(call: TeacherCall) -> str:
    """Collect the question's text, in every dialect, in the order in which it stands there."""
    if call.form is not None:
        return "\n".join(hashlib.sha256(value).hexdigest() for value in call.form.values())
    return "\n".join(text for name in _PROMPT_MEMBERS for text in texts_of(call.fields.get(name)))


def texts_of(node: Any) -> Iterator[str]:
    match node:
        case str():
            yield node
        case list():
            for item in node:
                yield from texts_of(item)
        case dict():
            for name in _TEXT_MEMBERS:
                yield from texts_of(node.get(name))
        case int():
            yield str(node)
        case _:
            return


def asks_for_tool(turns: Any) -> bool:
    """Return whether the last turn is the user's and holds the marker."""
    last = turns[-1] if isinstance(turns, list) and turns else turns
    if isinstance(last, dict) and last.get("role", "user") != "user":
        return False
    return any(TOOL_MARKER in text for text in texts_of(last))


def _request_digest(call: TeacherCall) -> str:
    if call.form is not None:
        content = repr(sorted(call.form.items()))
    else:
        fields = {name: value for name, value in call.fields.items() if name not in _TRANSPORT_MEMBERS}
        content = json.dumps(fields, sort_keys=True)
    # Gemini's two methods are two forms of one question.
    path = call.path.replace(":streamGenerateContent", ":generateContent")
    return hashlib.sha256(f"{path}\n{content}".encode()).hexdigest()[:12]
