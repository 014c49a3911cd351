"""A teacher per test and the official clients that talk to it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio
from google import genai

from kdproxy.testing.teacher import ScriptedTeacher

NO_RETRIES: dict[str, Any] = {"api_key": "test", "max_retries": 0}


@pytest_asyncio.fixture
async def teacher() -> AsyncIterator[ScriptedTeacher]:
    async with ScriptedTeacher() as teacher:
        yield teacher


@pytest_asyncio.fixture
async def ask_openai(teacher: ScriptedTeacher) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=teacher.base_url, **NO_RETRIES) as client:
        yield client


@pytest.fixture
def ask_openai_sync(teacher: ScriptedTeacher) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=teacher.base_url, **NO_RETRIES) as client:
        yield client


@pytest_asyncio.fixture
async def ask_anthropic(teacher: ScriptedTeacher) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=teacher.root_url, **NO_RETRIES) as client:
        yield client


@pytest.fixture
def ask_anthropic_sync(teacher: ScriptedTeacher) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=teacher.root_url, **NO_RETRIES) as client:
        yield client


@pytest_asyncio.fixture
async def ask_gemini(teacher: ScriptedTeacher) -> AsyncIterator[genai.Client]:
    client = genai.Client(api_key="test", http_options={"base_url": teacher.root_url})
    yield client
    await client.aio.aclose()
    client.close()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a provider's manners, credentials given."""
    async with aiohttp.ClientSession(
        headers={"Authorization": "Bearer test"}, timeout=aiohttp.ClientTimeout(total=10)
    ) as session:
        yield session
