"""OpenAI's dialect: which endpoint a path names, decided by its end, so that any base path works."""

import re
from collections.abc import Callable

from kdproxy.testing.teacher.answer import Json, Reply, Whole, sse, whole
from kdproxy.testing.teacher.call import TeacherCall
from kdproxy.testing.teacher.fault import Fault, Problem, bad_request, not_found
from kdproxy.testing.teacher.limit import LimitState
from kdproxy.testing.teacher.openai.audio import answer_speech, answer_transcription
from kdproxy.testing.teacher.openai.chat import answer_chat
from kdproxy.testing.teacher.openai.completion import answer_completion
from kdproxy.testing.teacher.openai.embedding import answer_embedding
from kdproxy.testing.teacher.openai.error import error_body, limit_headers, refuse
from kdproxy.testing.teacher.openai.image import answer_image
from kdproxy.testing.teacher.openai.moderation import answer_moderation
from kdproxy.testing.teacher.openai.response import answer_response, finished_response
from kdproxy.testing.teacher.openai.shelf import Shelf, model, models
from kdproxy.testing.teacher.stamp import Stamp

# The first suffix that matches wins: chat/completions ends in completions too.
_QUESTIONS: dict[str, Callable[[Json, Stamp], Reply]] = {
    "/chat/completions": answer_chat,
    "/completions": answer_completion,
    "/embeddings": answer_embedding,
    "/moderations": answer_moderation,
    "/audio/speech": answer_speech,
    "/images/generations": answer_image,
}
_DEFAULT_MODELS = {"/moderations": "omni-moderation-latest", "/images/generations": "dall-e-2"}
_STORED = re.compile(r"/(models|files|batches|responses)(?:/([^/]+))?(/content|/cancel)?$")
_DEPLOYMENT = "/openai/deployments/"
_BROKEN = Fault(problem=Problem.SERVER_ERROR, message="The server had an error.")


class OpenAIDialect:
    """Answers OpenAI's paths, and 404 to unknown ones."""

    def __init__(self) -> None:
        self._shelf = Shelf()

    def answer(self, call: TeacherCall, stamp: Stamp) -> Reply:
        reply = self._asked(call, stamp) if call.method == "POST" else self._looked_up(call)
        if reply is None:
            raise not_found(f"Invalid URL ({call.method} {call.path})")
        return reply

    def _asked(self, call: TeacherCall, stamp: Stamp) -> Reply | None:
        path = call.path
        for suffix, answer in _QUESTIONS.items():
            if path.endswith(suffix):
                return answer(_question(call, default_model=_DEFAULT_MODELS.get(suffix)), stamp)
        if path.endswith("/responses"):
            return self._respond(_question(call), stamp)
        if path.endswith("/audio/transcriptions"):
            return answer_transcription(call.form or {}, stamp, task="transcribe")
        if path.endswith("/audio/translations"):
            return answer_transcription(call.form or {}, stamp, task="translate")
        if path.endswith("/files"):
            return self._shelf.add_file(call, stamp)
        if path.endswith("/batches"):
            return self._add_batch(call, stamp)
        return None

    def _respond(self, body: Json, stamp: Stamp) -> Reply:
        reply = answer_response(body, stamp)
        if body.get("store", True):
            final = finished_response(body, stamp)
            self._shelf.objects[final["id"]] = final
        return reply

    def _add_batch(self, call: TeacherCall, stamp: Stamp) -> Reply:
        endpoint = str(call.fields.get("endpoint")).removeprefix("/v1")
        if endpoint not in _QUESTIONS:
            raise bad_request(f"Invalid value: '{endpoint}'.", param="endpoint")
        return self._shelf.add_batch(call.fields, stamp, _QUESTIONS[endpoint])

    def _looked_up(self, call: TeacherCall) -> Reply | None:
        found = _STORED.search(call.path)
        if found is None:
            return None
        match call.method, found.groups():
            case "GET", ("models", None, None):
                return models()
            case "GET", ("models", str(name), None):
                return whole(model(name))
            case "GET", ("files", None, None):
                return self._shelf.listing("file")
            case "GET", ("batches", None, None):
                return self._shelf.listing("batch")
            case "GET", ("files", str(identity), "/content"):
                return self._shelf.content(identity)
            case "GET", (_, str(identity), None):
                return whole(self._shelf.get(identity))
            case "DELETE", (_, str(identity), None):
                return self._shelf.delete(identity)
        return None

    def refuse(self, fault: Fault, call: TeacherCall) -> Whole:
        return refuse(fault, is_azure=_DEPLOYMENT in call.path)

    def error_event(self, call: TeacherCall, *, position: int) -> bytes:
        if call.path.endswith("/responses"):
            error = {"code": "server_error", "message": _BROKEN.message, "param": None}
            return sse({"type": "error", "sequence_number": position, **error}, event="error")
        return sse(error_body(_BROKEN))

    def headers(self, call: TeacherCall, stamp: Stamp, limit: LimitState) -> dict[str, str]:
        return {
            "x-request-id": f"req_{stamp.token}",
            "openai-processing-ms": "20",
            "openai-version": "2020-10-01",
            **limit_headers(limit),
        }


def _question(call: TeacherCall, *, default_model: str | None = None) -> Json:
    if not isinstance(call.json, dict):
        raise bad_request("We could not parse the JSON body of your request.")
    body = dict(call.json)
    if not isinstance(body.get("model"), str):
        # Azure names the model in the path.
        _, _, deployment = call.path.partition(_DEPLOYMENT)
        name = deployment.split("/", 1)[0] or default_model
        if not name:
            raise bad_request("you must provide a model parameter")
        body["model"] = name
    return body
