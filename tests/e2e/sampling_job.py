"""A job that asks each of some prompts several times, and appends each answer to a file: it may be killed at any time.

`python sampling_job.py URL FILE PROMPTS SAMPLES [--skip-done]`: with `--skip-done` it asks only for what the file
lacks, as scripts with their own list of finished rows do; else it asks for all from the beginning.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

AT_ONCE = 16
RETRY_SECONDS = 0.05


async def ask(session: aiohttp.ClientSession, url: str, prompt: int, *, streams: bool) -> dict[str, Any]:
    """Return one answer. Retries while the proxy is away, as official clients do: without a mark."""
    body = {"model": "m", "stream": streams, "messages": [{"role": "user", "content": f"Question {prompt}"}]}
    while True:
        try:
            async with session.post(f"{url}/chat/completions", json=body) as response:
                raw = await response.read()
                if response.status == 200 and (not streams or b"[DONE]" in raw):
                    return {"prompt": prompt, "sample": int(response.headers["Kdproxy-Sample"]), "raw": raw.decode()}
        except (aiohttp.ClientError, ConnectionError):
            pass
        await asyncio.sleep(RETRY_SECONDS)


async def main(url: str, results: Path, prompts: int, samples: int, *, skips_done: bool) -> None:
    """Ask until each prompt has its samples."""
    done: Counter[int] = Counter()
    if skips_done and results.exists():
        done.update(json.loads(line)["prompt"] for line in results.read_text().splitlines())
    descriptor = os.open(results, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(session: aiohttp.ClientSession, prompt: int) -> None:
        async with room:
            answer = await ask(session, url, prompt, streams=prompt % 2 == 1)
            os.write(descriptor, json.dumps(answer).encode() + b"\n")

    headers = {"Authorization": "Bearer x"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        wanted = [prompt for prompt in range(prompts) for _ in range(samples - done[prompt])]
        await asyncio.gather(*(one(session, prompt) for prompt in wanted))


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), skips_done="--skip-done" in sys.argv)
    )
