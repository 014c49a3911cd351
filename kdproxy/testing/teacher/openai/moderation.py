"""POST moderations."""

from kdproxy.testing.teacher.answer import Json, Reply, whole
from kdproxy.testing.teacher.fault import bad_request
from kdproxy.testing.teacher.stamp import Stamp

_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def answer_moderation(body: Json, stamp: Stamp) -> Reply:
    """Find nothing wrong with any input; `model` may be left out here."""
    if "input" not in body:
        raise bad_request("Missing required parameter: 'input'.", param="input")
    count = len(body["input"]) if isinstance(body["input"], list) else 1
    scores = {name: stamp.noise(index + 1)[-1] / 2**16 for index, name in enumerate(_CATEGORIES)}
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    return whole({"id": f"modr-{stamp.token}", "model": body["model"], "results": [result] * count})
