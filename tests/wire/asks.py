"""The request that most tests send, and its usual variants."""

from typing import Any

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
STREAM = {**ASK, "stream": True}
WITH_USAGE = {**STREAM, "stream_options": {"include_usage": True}}
PLAIN = {"Authorization": "Bearer x", "Content-Type": "application/json"}
