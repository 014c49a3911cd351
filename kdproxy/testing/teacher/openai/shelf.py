"""What OpenAI stores between calls: models, files, batches, stored responses; enough to pass them through."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from kdproxy.testing.teacher.answer import Json, Reply, Whole, dump, whole
from kdproxy.testing.teacher.call import TeacherCall
from kdproxy.testing.teacher.fault import bad_request, not_found
from kdproxy.testing.teacher.stamp import Stamp

_MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-5-mini", "text-embedding-3-small", "whisper-1")
_MODELS_CREATED = 1_744_317_547


def models() -> Whole:
    return whole({"object": "list", "data": [model(name) for name in _MODELS]})


def model(name: str) -> Json:
    return {"id": name, "object": "model", "created": _MODELS_CREATED, "owned_by": "system"}


@dataclass(slots=True)
class Shelf:
    """Objects by id, and files' contents beside them."""

    objects: dict[str, Json] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)

    def listing(self, kind: str) -> Whole:
        data = [value for value in self.objects.values() if value["object"] == kind]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return whole({"object": "list", "data": data, **ends, "has_more": False})

    def get(self, identity: str) -> Json:
        try:
            return self.objects[identity]
        except KeyError:
            raise not_found(f"No such object: {identity}") from None

    def delete(self, identity: str) -> Whole:
        kind = self.get(identity)["object"]
        del self.objects[identity]
        return whole({"id": identity, "object": kind, "deleted": True})

    def content(self, identity: str) -> Whole:
        self.get(identity)
        return Whole(body=self.contents[identity], content_type="application/octet-stream")

    def add_file(self, call: TeacherCall, stamp: Stamp) -> Reply:
        form = call.form or {}
        if "file" not in form or "purpose" not in form:
            raise bad_request("Missing required parameter: 'file' or 'purpose'.")
        name = form.get("file.filename", b"file").decode(errors="replace")
        purpose = form["purpose"].decode(errors="replace")
        return whole(self._file(f"file-{stamp.token}", name, purpose, form["file"], stamp))

    def add_batch(self, body: Json, stamp: Stamp, answer: Callable[[Json, Stamp], Reply]) -> Reply:
        """Start a batch; it is complete at the next request for it."""
        source = self.contents.get(str(body.get("input_file_id")))
        if source is None:
            raise not_found(f"No such File object: {body.get('input_file_id')}")
        batch = {
            "id": f"batch_{stamp.token}",
            "object": "batch",
            "endpoint": body.get("endpoint"),
            "errors": None,
            "input_file_id": body["input_file_id"],
            "completion_window": body.get("completion_window", "24h"),
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": stamp.created,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": body.get("metadata"),
        }
        lines = [json.loads(line) for line in source.splitlines() if line.strip()]
        output = b"".join(_batch_line(line, stamp, number, answer) for number, line in enumerate(lines))
        result = self._file(f"file-{stamp.token}out", "output.jsonl", "batch_output", output, stamp)
        counts = {"total": len(lines), "completed": len(lines), "failed": 0}
        self.objects[batch["id"]] = batch | {
            "status": "completed",
            "output_file_id": result["id"],
            "request_counts": counts,
        }
        return whole(batch)

    def _file(self, identity: str, name: str, purpose: str, content: bytes, stamp: Stamp) -> Json:
        value = {
            "id": identity,
            "object": "file",
            "bytes": len(content),
            "created_at": stamp.created,
            "expires_at": None,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        self.objects[identity] = value
        self.contents[identity] = content
        return value


def _batch_line(line: Json, stamp: Stamp, number: int, answer: Callable[[Json, Stamp], Reply]) -> bytes:
    own = Stamp(serial=f"{stamp.serial}.{number}", digest=stamp.digest, created=stamp.created, words=stamp.words)
    reply = answer(line["body"], own)
    assert isinstance(reply, Whole)
    response = {"status_code": 200, "request_id": f"req_{own.token}", "body": json.loads(reply.body)}
    value = {
        "id": f"batch_req_{own.token}",
        "custom_id": line["custom_id"],
        "response": response,
        "error": None,
    }
    return dump(value) + b"\n"
