"""A server is asked once, in the background, and not where it is a provider's own."""

import asyncio

import pytest

from kdproxy.core.models import HeaderPairs, Upstream
from kdproxy.core.ports import UpstreamRequest
from kdproxy.core.server_kind import Recognition, ServerKind
from kdproxy.engine.server_kind import ASK_AGAIN_SECONDS, ServerKinds
from kdproxy.errors import UpstreamFailed
from kdproxy.testing.virtual import VirtualClock, VirtualLoop

pytestmark = pytest.mark.filterwarnings("error")
OWN = Upstream(name="own", url="http://127.0.0.1:8000/v1")
DOWN = UpstreamFailed("refused", hint="x", was_sent=False)


class Page:
    """The part of the UpstreamResponse port that is used."""

    def __init__(self, body: bytes, status: int = 200, headers: HeaderPairs = ()) -> None:
        self.status, self.headers, self._body = status, headers, body

    async def read(self, limit_bytes: int) -> bytes:
        return self._body

    def close(self) -> None:
        pass


class Server:
    """The UpstreamClient port: pages by path."""

    def __init__(self, pages: dict[str, Page | UpstreamFailed]) -> None:
        self.pages = pages
        self.asked: list[UpstreamRequest] = []

    async def send(self, request: UpstreamRequest) -> Page:
        self.asked.append(request)
        await asyncio.sleep(0.01)
        page = self.pages.get(request.url.removeprefix("http://127.0.0.1:8000"), Page(b"", 404))
        if isinstance(page, UpstreamFailed):
            raise page
        return page


VLLM = {"/v1/models": Page(b'{"data":[{"id":"m","owned_by":"vllm"}]}')}


def run(main: object) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)  # type: ignore[arg-type]


def test_it_is_asked_once_and_nobody_waits() -> None:
    async def main() -> None:
        server = Server(VLLM)
        kinds = ServerKinds(server, VirtualClock())  # type: ignore[arg-type]
        assert [kinds.of(OWN) for _ in range(5)] == [None] * 5
        await kinds.settled()
        assert kinds.of(OWN) == Recognition(ServerKind.VLLM)
        assert [(request.method, request.headers) for request in server.asked] == [("GET", ())]

    run(main())


def test_slots_are_asked_of_the_one_server_that_has_them() -> None:
    async def main() -> None:
        models = Page(b'{"data":[{"id":"m","owned_by":"llamacpp"}]}', headers=(("Server", "llama.cpp"),))
        props = Page(b'{"default_generation_settings":{},"total_slots":2}')
        kinds = ServerKinds(Server({"/v1/models": models, "/props": props}), VirtualClock())  # type: ignore[arg-type]
        kinds.of(OWN)
        await kinds.settled()
        assert kinds.of(OWN) == Recognition(ServerKind.LLAMA_CPP, slots=2)

    run(main())


def test_one_that_is_down_is_asked_again_later() -> None:
    async def main() -> None:
        server = Server({"/v1/models": DOWN})
        kinds = ServerKinds(server, VirtualClock())  # type: ignore[arg-type]
        kinds.of(OWN)
        await kinds.settled()
        kinds.of(OWN)
        await kinds.settled()
        assert len(server.asked) == 1
        server.pages = dict(VLLM)
        await asyncio.sleep(ASK_AGAIN_SECONDS)
        kinds.of(OWN)
        await kinds.settled()
        assert kinds.of(OWN) == Recognition(ServerKind.VLLM)

    run(main())


def test_a_local_gateway_is_not_recognised() -> None:
    async def main() -> None:
        headers = (("Server", "uvicorn"),)
        server = Server({"/v1/models": Page(b'{"data":[{"id":"gpt-4o","owned_by":"openai"}]}', headers=headers)})
        kinds = ServerKinds(server, VirtualClock())  # type: ignore[arg-type]
        kinds.of(OWN)
        await kinds.settled()
        assert kinds.of(OWN) is None
        asked = len(server.asked)
        kinds.of(OWN)
        await kinds.settled()
        assert len(server.asked) == asked

    run(main())


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "https://openrouter.ai/api/v1"])
def test_a_providers_own_host_is_never_asked(url: str) -> None:
    async def main() -> None:
        server = Server({})
        kinds = ServerKinds(server, VirtualClock())  # type: ignore[arg-type]
        assert kinds.of(Upstream(name="u", url=url)) is None
        await kinds.settled()
        assert server.asked == []

    run(main())
