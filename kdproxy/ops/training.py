"""`export --format chat`: stored answers of any dialect as training rows in OpenAI's chat format.

One row for each choice: {"messages": [..., {"role": "assistant", ...}], "model", "finish_reason", "key", ...}.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from kdproxy.core.models import Entry, Prompt
from kdproxy.ops.choice import Choice, call, dumped, objects
from kdproxy.ops.reading import choices_of
from kdproxy.providers.base import json_object

Message = dict[str, Any]


class TrainingRows:
    """Makes the rows of one export: for each sample its first recording, unless all are requested."""

    def __init__(self, *, everything: bool = False) -> None:
        self._everything = everything
        self.empty = 0
        """Empty choices: no text, reasoning, refusal or tool call."""
        self.repeated = 0
        """Further recordings of a sample: in its other form, or spares from a warmed journal."""
        self.other = 0
        """Stored lines that are not conversations."""
        self.skipped = 0
        """Stored lines of which no row is made."""
        self._seen: set[int] = set()
        self._held: dict[int, tuple[_Sample, list[dict[str, Any]]]] = {}
        """Rows of samples whose predecessors have not come."""

    def take(self, stored: Entry | Prompt) -> list[dict[str, Any]]:
        """Return the rows that come next: the samples of a question in order, however they were bought."""
        # 64 bits are enough to identify a sample, and a million of them fit into 60 MB.
        sample = _sample(stored)
        name = hash(sample)
        if name in self._seen and not self._everything:
            self.repeated += 1
            self.skipped += 1
            return []
        self._seen.add(name)
        given, empty = _rows(stored)
        self.empty += empty
        self.other += not (given or empty)
        self.skipped += not given
        if self._everything:
            return given
        if sample.ordinal:
            before = hash(sample._replace(ordinal=sample.ordinal - 1))
            if before not in self._seen or before in self._held:
                self._held[name] = sample, given
                return []
        found = given
        while self._held and (follower := self._held.pop(hash(sample := sample.next), None)) is not None:
            found = found + follower[1]
        return found

    def rest(self) -> list[dict[str, Any]]:
        """Return the rows of samples whose predecessors have not come at all: they are not stored."""
        held = sorted(self._held.values(), key=lambda each: each[0])
        self._held.clear()
        return [row for _, rows_of in held for row in rows_of]


class _Sample(NamedTuple):
    namespace: str
    key: str
    ordinal: int
    is_prompt: bool

    @property
    def next(self) -> "_Sample":
        return self._replace(ordinal=self.ordinal + 1)


def _sample(stored: Entry | Prompt) -> _Sample:
    if isinstance(stored, Entry):
        return _Sample(*stored.address, is_prompt=False)
    return _Sample(stored.namespace, stored.match_key, stored.ordinal, is_prompt=True)


def rows(stored: Entry | Prompt) -> list[dict[str, Any]]:
    """Return the training rows of a stored answer; none if it is not a conversation or is empty."""
    return _rows(stored)[0]


def _rows(stored: Entry | Prompt) -> tuple[list[dict[str, Any]], int]:
    """Return the rows, and the number of empty choices."""
    if isinstance(stored, Prompt):
        asked = [{"role": turn.role, "content": turn.text} for turn in stored.turns]
        answer = {"role": "assistant", "content": stored.response}
        facts = {"model": stored.model, "finish_reason": None, "provider": None, "key": stored.match_key}
        return [{"messages": [*asked, answer], **facts, "ordinal": stored.ordinal, "choice": 0}], 0
    request = json_object(stored.request or b"")
    question = _QUESTIONS.get((stored.provider, stored.endpoint))
    if request is None or question is None:
        return [], 0
    asked = list(question(request))
    choices = choices_of(stored)
    questions = [asked] * len(choices)
    if stored.endpoint == "completions":
        # Several prompts, each with equally many choices, in the order of the prompts.
        questions = [asked[index * len(asked) // len(choices) :][:1] for index in range(len(choices))]
    facts = {"model": stored.model, "provider": stored.provider, "key": stored.address.key}
    place = {"ordinal": stored.address.ordinal}
    tools = _tools(request.get("tools"))
    extra = {"tools": tools} if tools else {}
    found = [
        {
            "messages": [*turns, _answer(choice)],
            **extra,
            **facts,
            "finish_reason": choice.finish_reason,
            **place,
            "choice": index,
        }
        for index, (turns, choice) in enumerate(zip(questions, choices, strict=True))
        if turns and choice.says_something
    ]
    return found, sum(not choice.says_something for choice in choices)


def _answer(choice: Choice) -> Message:
    message: Message = {"role": "assistant", "content": choice.text}
    if choice.reasoning is not None:
        message["reasoning_content"] = choice.reasoning
    if choice.refusal is not None:
        message["refusal"] = choice.refusal
    if choice.tool_calls:
        message["tool_calls"] = choice.tool_calls
    if choice.function_call is not None:
        message["function_call"] = choice.function_call
    return message


def _tools(given: Any) -> list[Any] | None:
    """Return tools as chat requests declare them: OpenAI's flat and nested forms, Anthropic's and Gemini's."""
    if not isinstance(given, list):
        return None
    tools: list[Any] = []
    for tool in given:
        declared = [tool]
        if isinstance(tool, dict):
            declared = tool.get("functionDeclarations", tool.get("function_declarations")) or [tool]
        tools += map(_tool, declared)
    return tools


_SCHEMAS = ("input_schema", "parametersJsonSchema", "parameters")


def _tool(given: Any) -> Any:
    if (
        not isinstance(given, dict)
        or "function" in given
        or "custom" in given
        or not isinstance(given.get("name"), str)
    ):
        return given
    if given.get("type") not in (None, "function", "custom") or "format" in given:
        return given  # a kind that chat does not have
    function = {name: given[name] for name in ("name", "description", "strict") if given.get(name) is not None}
    schema = next((given[name] for name in _SCHEMAS if given.get(name) is not None), None)
    return {"type": "function", "function": function if schema is None else {**function, "parameters": schema}}


# -- questions, by dialect ------------------------------------------------------------------------------------------


def _chat(request: dict[str, Any]) -> Iterator[Message]:
    yield from objects(request.get("messages"))


def _completion(request: dict[str, Any]) -> Iterator[Message]:
    prompt = request.get("prompt")
    for text in prompt if isinstance(prompt, list) else [prompt]:
        if isinstance(text, str):  # otherwise token ids, which are not a conversation
            yield {"role": "user", "content": text}


def _responses(request: dict[str, Any]) -> Iterator[Message]:
    if request.get("instructions") is not None:
        yield {"role": "system", "content": request["instructions"]}
    given = request.get("input")
    if isinstance(given, str):
        yield {"role": "user", "content": given}
    for item in objects(given):
        match item.get("type", "message"):
            case "message":
                yield {"role": item.get("role"), "content": _content(item.get("content"))}
            case "function_call":
                made = call(item.get("call_id"), item.get("name"), item.get("arguments"))
                yield {"role": "assistant", "content": None, "tool_calls": [made]}
            case "custom_tool_call":
                custom = call(item.get("call_id"), item.get("name"), item.get("input"), kind="custom")
                yield {"role": "assistant", "content": None, "tool_calls": [custom]}
            case "function_call_output" | "custom_tool_call_output":
                yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}


def _messages(request: dict[str, Any]) -> Iterator[Message]:
    if request.get("system") is not None:
        yield {"role": "system", "content": _content(request["system"])}
    for message in objects(request.get("messages")):
        blocks = message.get("content")
        calls = [
            call(block.get("id"), block.get("name"), dumped(block.get("input") or {}))
            for block in objects(blocks)
            if block.get("type") == "tool_use"
        ]
        for block in objects(blocks):
            if block.get("type") == "tool_result":
                result = _content(block.get("content"))
                yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": result}
        kept = blocks
        if isinstance(blocks, list):
            moved = ("tool_use", "tool_result", "thinking", "redacted_thinking")
            kept = [block for block in objects(blocks) if block.get("type") not in moved]
        if kept or calls:
            content = _content(kept) if kept else None
            row: Message = {"role": message.get("role"), "content": content}
            yield {**row, "tool_calls": calls} if calls else row


def _gemini(request: dict[str, Any]) -> Iterator[Message]:
    system = request.get("systemInstruction", request.get("system_instruction"))
    if isinstance(system, dict):
        yield {"role": "system", "content": _content(system.get("parts"))}
    for content in objects(request.get("contents")):
        parts = list(objects(content.get("parts")))
        for part in parts:
            result = part.get("functionResponse")
            if isinstance(result, dict):
                output = dumped(result.get("response"))
                yield {"role": "tool", "tool_call_id": result.get("id") or result.get("name"), "content": output}
        calls = [
            call(given.get("id"), given.get("name"), dumped(given.get("args") or {}))
            for part in parts
            if isinstance(given := part.get("functionCall"), dict)
        ]
        kept = [part for part in parts if not {"functionCall", "functionResponse"} & part.keys()]
        if kept or calls:
            role = "assistant" if content.get("role") == "model" else "user"
            row: Message = {"role": role, "content": _content(kept) if kept else None}
            yield {**row, "tool_calls": calls} if calls else row


def _interaction(request: dict[str, Any]) -> Iterator[Message]:
    if request.get("system_instruction") is not None:
        yield {"role": "system", "content": request["system_instruction"]}
    given = request.get("input")
    if isinstance(given, str):
        yield {"role": "user", "content": given}
        return
    for step in objects([given] if isinstance(given, dict) else given):
        match step.get("type"):
            case "model_output":
                yield {"role": "assistant", "content": _content(step.get("content"))}
            case "function_call":
                made = call(step.get("id"), step.get("name"), dumped(step.get("arguments") or {}))
                yield {"role": "assistant", "content": None, "tool_calls": [made]}
            case "function_result":
                output = step.get("result")
                output = output if isinstance(output, str) else dumped(output)
                yield {"role": "tool", "tool_call_id": step.get("call_id"), "content": output}
            case "user_input":
                yield {"role": "user", "content": _content(step.get("content"))}
            case "text":
                yield {"role": "user", "content": step.get("text")}


_QUESTIONS = {
    ("openai", "chat.completions"): _chat,
    ("openai", "completions"): _completion,
    ("openai", "responses"): _responses,
    ("anthropic", "messages"): _messages,
    ("gemini", "generateContent"): _gemini,
    ("gemini", "interactions"): _interaction,
}


def _content(value: Any) -> Any:
    """Return blocks that are all text as one text; otherwise the blocks unchanged."""
    if not isinstance(value, list):
        return value
    texts = [block.get("text") if isinstance(block, dict) else None for block in value]
    return "".join(text for text in texts if text) if all(isinstance(text, str) for text in texts) else value
