"""Which provider a call is meant for: decided by the end of the path, so that any base path works."""

from kdproxy.testing.teacher.anthropic.dialect import AnthropicDialect
from kdproxy.testing.teacher.call import TeacherCall
from kdproxy.testing.teacher.dialect import Dialect
from kdproxy.testing.teacher.gemini.dialect import METHOD, GeminiDialect
from kdproxy.testing.teacher.openai.dialect import OpenAIDialect

_CREDENTIAL_HEADERS = ("Authorization", "x-api-key", "api-key", "x-goog-api-key")
_ANTHROPIC_ENDS = ("/v1/messages", "/v1/messages/count_tokens")


class Dialects:
    """One of each, for one teacher."""

    def __init__(self) -> None:
        self._openai = OpenAIDialect()
        self._anthropic = AnthropicDialect()
        self._gemini = GeminiDialect()

    def of(self, call: TeacherCall) -> Dialect:
        if call.path.endswith(_ANTHROPIC_ENDS) or "anthropic-version" in call.headers:
            return self._anthropic
        # Google's newer client asks for /v1/models too: its header distinguishes it from OpenAI's.
        has_google_key = "x-goog-api-key" in call.headers and "/models" in call.path
        if has_google_key or "/v1beta/models" in call.path or METHOD.search(call.path):
            return self._gemini
        return self._openai


def has_credentials(call: TeacherCall) -> bool:
    return any(call.headers.get(name) for name in _CREDENTIAL_HEADERS) or bool(call.query.get("key"))
