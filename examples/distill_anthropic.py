"""Ask Claude a list of questions and write its answers as chat rows to train a student on.

An ordinary script for the official `anthropic` client: ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL come from the
environment. It has no cache, no resume and no retry code of its own.
"""

import argparse
import json
from pathlib import Path

from anthropic import Anthropic
from anthropic.types import Message, MessageParam

PROMPTS = Path(__file__).with_name("prompts.txt")
SYSTEM = "Answer in at most three sentences, for a reader of twelve."
STREAM_EVERY = 3
GREEDY = {"temperature": 0}  # the client names no temperature any more; models up to 4.5 take it


def ask(client: Anthropic, model: str, prompt: str, *, max_tokens: int, stream: bool) -> Message:
    """Ask one question, whole or as a stream."""
    messages: list[MessageParam] = [{"role": "user", "content": prompt}]
    if stream:
        with client.messages.stream(
            model=model, max_tokens=max_tokens, system=SYSTEM, messages=messages, extra_body=GREEDY
        ) as answer:
            return answer.get_final_message()
    return client.messages.create(
        model=model, max_tokens=max_tokens, system=SYSTEM, messages=messages, extra_body=GREEDY
    )


def row(prompt: str, answer: Message) -> dict[str, object]:
    """Make one training row in the usual chat shape."""
    text = "".join(block.text for block in answer.content if block.type == "text")
    return {
        "id": answer.id,
        "model": answer.model,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": text},
        ],
        "usage": {"input_tokens": answer.usage.input_tokens, "output_tokens": answer.usage.output_tokens},
    }


def main() -> None:
    """Read the arguments, ask, and write one row after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="claude-haiku-4-5")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="one question a line")
    parser.add_argument("--out", type=Path, default=Path("train-anthropic.jsonl"))
    parser.add_argument("--limit", type=int, default=None, help="ask only the first N")
    parser.add_argument("--max-tokens", type=int, default=256)
    args = parser.parse_args()
    prompts = args.prompts.read_text(encoding="utf-8").splitlines()[: args.limit]
    with Anthropic() as client, args.out.open("w", encoding="utf-8") as file:
        for number, prompt in enumerate(prompts, start=1):
            stream = number % STREAM_EVERY == 0
            answer = ask(client, args.model, prompt, max_tokens=args.max_tokens, stream=stream)
            file.write(json.dumps(row(prompt, answer), ensure_ascii=False) + "\n")
            print(f"{number}/{len(prompts)} {prompt}", flush=True)


if __name__ == "__main__":
    main()
