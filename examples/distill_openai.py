"""Ask a teacher model a list of questions and write its answers, with logprobs, as rows to train a student on.

An ordinary script for the official `openai` client: OPENAI_API_KEY and OPENAI_BASE_URL come from the environment. It
has no cache, no resume and no retry code of its own, and starts its output file afresh each time.
"""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

PROMPTS = Path(__file__).with_name("prompts.txt")
STREAM_EVERY = 3  # every third question is asked as a stream: people watch long answers grow


def soft_labels(tokens: list[Any]) -> list[dict[str, Any]]:
    """Keep what a student is trained on: each token with the teacher's most likely alternatives."""
    return [
        {"token": one.token, "logprob": one.logprob, "top": {other.token: other.logprob for other in one.top_logprobs}}
        for one in tokens
    ]


async def ask(client: AsyncOpenAI, question: dict[str, Any]) -> dict[str, Any]:
    """Ask for the whole answer at once."""
    answer = await client.chat.completions.create(**question)
    choice = answer.choices[0]
    tokens = (choice.logprobs.content if choice.logprobs else None) or []
    usage = answer.usage.model_dump(exclude_none=True) if answer.usage else None
    return {"id": answer.id, "response": choice.message.content, "labels": soft_labels(tokens), "usage": usage}


async def ask_streamed(client: AsyncOpenAI, question: dict[str, Any]) -> dict[str, Any]:
    """Ask for a stream and put it together."""
    text, usage, answer_id = "", None, None
    tokens: list[Any] = []
    stream = await client.chat.completions.create(**question, stream=True, stream_options={"include_usage": True})
    async for chunk in stream:
        answer_id = chunk.id
        usage = chunk.usage.model_dump(exclude_none=True) if chunk.usage else usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            tokens += (choice.logprobs.content if choice.logprobs else None) or []
    return {"id": answer_id, "response": text, "labels": soft_labels(tokens), "usage": usage}


async def distill(model: str, prompts: list[str], out: Path, concurrency: int, max_tokens: int) -> None:
    """Ask all prompts, a few at a time, and write the rows in the order of the prompts."""
    client = AsyncOpenAI()
    room = asyncio.Semaphore(concurrency)

    async def row(number: int, prompt: str) -> dict[str, Any]:
        question = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "logprobs": True,
            "top_logprobs": 5,
        }
        async with room:
            answer = await (ask_streamed if number % STREAM_EVERY == 0 else ask)(client, question)
        return {"prompt": prompt, "model": model, **answer}

    async with client, asyncio.TaskGroup() as group:
        rows = [group.create_task(row(number, prompt)) for number, prompt in enumerate(prompts, start=1)]
        with out.open("w", encoding="utf-8") as file:
            for number, task in enumerate(rows, start=1):
                file.write(json.dumps(await task, ensure_ascii=False) + "\n")
                file.flush()
                print(f"{number}/{len(rows)} {prompts[number - 1]}", flush=True)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gpt-4o-mini")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="one question a line")
    parser.add_argument("--out", type=Path, default=Path("train-openai.jsonl"))
    parser.add_argument("--limit", type=int, default=None, help="ask only the first N")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=64)
    args = parser.parse_args()
    prompts = args.prompts.read_text(encoding="utf-8").splitlines()[: args.limit]
    asyncio.run(distill(args.model, prompts, args.out, args.concurrency, args.max_tokens))


if __name__ == "__main__":
    main()
