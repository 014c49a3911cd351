"""The oracle of the crash tests: real clients, and what they know. It lives in the parent of what is killed.

Each answer that a client saw finish must be served again, byte for byte, and its question is never sent again. A run's
samples are given in order: after a death of the proxy the next is the one after the last that a client had; only a
request in flight leaves two possibilities.
"""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

from kdproxy.storage.lock import read_owner
from kdproxy.testing.teacher import ScriptedTeacher
from tests.e2e.crash.lives import Life

CHAT = "/v1/chat/completions"
HEADERS = {"Authorization": "Bearer x"}
REPLAY = {**HEADERS, "Kdproxy-Mode": "replay"}
CALLERS = 4
QUESTIONS = 5
"""How many a caller asks in one life."""
Gone = (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError)


def question(number: int) -> dict[str, Any]:
    """Every third is a stream; every fourth is large, so that segments are sealed."""
    words = "why " * (1_500 if number % 4 == 0 else 5)
    return {"model": "m", "messages": [{"role": "user", "content": words}], "seed": number, "stream": number % 3 == 0}


def run_question(token: int) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"Walk {token // 3}"}]}


@dataclass(slots=True)
class Oracle:
    """What the clients know."""

    teacher: ScriptedTeacher
    rng: Random
    http: aiohttp.ClientSession
    finished: dict[int, bytes] = field(default_factory=dict)
    samples: dict[tuple[str, int], bytes] = field(default_factory=dict)
    cut: Counter[Any] = field(default_factory=Counter)
    """How often a question was in flight when the proxy died: each may be paid once more."""
    checked: int = 0
    lost: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)
    token: int = 0
    next_ordinals: set[int] = field(default_factory=lambda: {0})
    """Which sample the attempt may give next."""
    _open: set[int] = field(default_factory=set)
    _asked: int = 0
    _waiting: list[int] = field(default_factory=list)

    # -- work: until the proxy dies, or all is asked ------------------------------------------------------------

    async def work(self, life: Life) -> None:
        callers = [self._call(life) for _ in range(CALLERS)]
        await asyncio.gather(*callers, self._walk(life), self._leave(life))

    async def _call(self, life: Life) -> None:
        for _ in range(QUESTIONS):
            number = self._waiting.pop() if self._waiting else self._asked
            self._asked = max(self._asked, number + 1)
            try:
                body = await self._post(life.address + CHAT, question(number), HEADERS)
            except Gone:
                body = None
            if body is None:
                self.cut[number] += 1
                self._waiting.append(number)
                return
            self.finished[number] = body[0]

    async def _post(self, url: str, question: Any, headers: dict[str, str]) -> tuple[bytes, int | None] | None:
        """Return an answer that was seen to finish; None: an error was answered."""
        received, ordinal = b"", None
        try:
            async with self.http.post(url, json=question, headers=headers) as response:
                if response.status != 200:
                    await response.read()
                    return None
                ordinal = int(response.headers.get("Kdproxy-Sample", 0))
                async for chunk in response.content.iter_any():
                    received += chunk
        except Gone:
            # The last event was seen, though the connection was cut behind it.
            if not received.endswith(b"data: [DONE]\n\n"):
                raise
        return received, ordinal

    async def _walk(self, life: Life) -> None:
        """One attempt of a run, one request at a time: samples, a cursor, back to it, a sample given back."""
        with contextlib.suppress(*Gone, _Refused):
            if self.rng.random() < 0.3:
                self.token += 1
                self.next_ordinals = {0}
            await self._sample(life)
            cursor = await self._api(life, "GET", f"/runs/r/cursor?attempt={self.token}")
            (at,) = self.next_ordinals
            await self._sample(life)
            await self._sample(life)
            self.next_ordinals.add(at)
            await self._api(life, "POST", f"/runs/r/cursor?attempt={self.token}", cursor)
            self.next_ordinals = {at}
            await self._sample(life)
            await self._sample(life)
            self.next_ordinals.add(at + 1)
            rewind = {"run": "r", "attempt": str(self.token), "last": 1}
            await self._api(life, "POST", "/rewind-run", rewind)
            self.next_ordinals = {at + 1}
            await self._sample(life)

    async def _sample(self, life: Life) -> None:
        asked = run_question(self.token)
        words = asked["messages"][0]["content"]
        possible = self.next_ordinals
        self.next_ordinals = possible | {ordinal + 1 for ordinal in possible}
        try:
            got = await self._post(f"{life.address}/runs/r/attempts/{self.token}{CHAT}", asked, HEADERS)
        except Gone:
            self.cut[words] += 1
            raise
        if got is None:
            self.cut[words] += 1
            raise _Refused
        body, ordinal = got
        assert ordinal is not None
        if ordinal not in possible:
            self._note("wrong", f"attempt {self.token} gave sample {ordinal}, expected one of {sorted(possible)}")
        if self.samples.setdefault((words, ordinal), body) != body:
            self._note("wrong", f"sample {ordinal} of {words!r} has changed")
        self.next_ordinals = {ordinal + 1}

    async def _leave(self, life: Life) -> None:
        """A client that hangs up right after its answer, or within it."""
        owner = read_owner(life.data_dir)
        if owner is None:
            return
        with contextlib.suppress(*Gone, OSError):
            host, port = life.address.removeprefix("http://").split(":")
            body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Leave"}]}'
            head = b"POST /runs/left/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer x\r\n"
            for until in (b"[DONE]", b"[DONE]", b"data:", b"HTTP"):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(
                    head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                try:
                    await asyncio.wait_for(reader.readuntil(until), 5)
                finally:
                    writer.transport.abort()
                    with contextlib.suppress(*Gone):
                        await writer.wait_closed()

    async def _api(self, life: Life, method: str, path: str, members: Any = None) -> Any:
        owner = read_owner(life.data_dir)
        if owner is None or owner.token is None:
            raise _Refused
        headers = {"Authorization": f"Bearer {owner.token}", "Content-Type": "application/json"}
        url = f"{life.address}/_kdproxy/api{path}"
        async with self.http.request(method, url, json=members, headers=headers) as response:
            text = await response.read()
            if response.status != 200 or b'"error"' in text:
                raise _Refused
            return None if path == "/rewind-run" else await response.json()

    async def ask_twice(self, life: Life) -> None:
        """A directory that is new: it sells one answer, and serves it again."""
        number, self._asked = self._asked, self._asked + 1
        got = await self._post(life.address + CHAT, question(number), HEADERS)
        assert got is not None
        await self._check(life, question(number), REPLAY, got[0])

    def forget_order(self) -> None:
        """A power cut may take back the uses of the last second: the samples are given again."""
        self.next_ordinals = set(range(max(self.next_ordinals) + 1))

    # -- checks -------------------------------------------------------------------------------------------------

    async def check(self, life: Life, most: int | None = None) -> None:
        """Ask again for what was finished: all, or the newest and as many others."""
        numbers = sorted(self.finished)
        if most is not None and len(numbers) > 2 * most:
            numbers = numbers[-most:] + self.rng.sample(numbers, most)
        for number in numbers:
            await self._check(life, question(number), REPLAY, self.finished[number])
        samples = list(self.samples.items())[-(most or len(self.samples)) :]
        for (words, ordinal), body in samples:
            asked = {"model": "m", "messages": [{"role": "user", "content": words}]}
            await self._check(life, asked, {**REPLAY, "Kdproxy-Sample": str(ordinal)}, body)

    async def _check(self, life: Life, asked: Any, headers: dict[str, str], expected: bytes) -> None:
        async with self.http.post(life.address + CHAT, json=asked, headers=headers) as response:
            body = await response.read()
        self.checked += 1
        name = asked.get("seed", asked["messages"][0]["content"])
        if response.status != 200:
            self._note("lost", f"{name} {headers.get('Kdproxy-Sample', '')}: {response.status} {body[:200]!r}")
        elif body != expected:
            self._note("wrong", f"{name}: other bytes are served")

    def check_bill(self) -> None:
        """No question was sent more often than once and once more for each time it was cut off."""
        sent: Counter[Any] = Counter()
        for call in self.teacher.calls:
            fields = call.fields
            sent[fields.get("seed", fields["messages"][0]["content"])] += 1
        samples = Counter(words for words, _ in self.samples)
        for name, count in sent.items():
            if name != "Leave" and count > self.cut[name] + samples.get(name, 1):
                self._note("wrong", f"{name} was sent {count} times, and cut off {self.cut[name]} times")

    def _note(self, kind: str, text: str) -> None:
        self.problems.append(f"{kind}: {text}")
        if kind == "lost":
            self.lost += 1
        else:
            self.wrong += 1


class _Refused(Exception):
    """An answer was an error."""
