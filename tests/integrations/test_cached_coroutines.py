"""`aio.cached`: coroutine functions computed once, endpoints, and a loop that never waits."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anyio", reason="needs anyio")
aio = pytest.importorskip("memories.aio")

from tests.support.passing_time import PassTime, pass_time  # noqa: E402, F401

import memories  # noqa: E402
from memories.errors import ClosedError, InvalidOptionTypeError  # noqa: E402


def test_tasks_share_a_computation_of_a_manager_that_is_opened_later(tmp_path: Path) -> None:
    """A program decorates when it is imported, and opens its manager in the event loop."""
    manager = aio.MemoryManager("10 MB", "10 MB", 1, storage_path=tmp_path / "store")
    calls: list[int] = []

    @aio.cached(manager, version=1)
    async def double(x: int) -> list[int]:
        calls.append(x)
        await asyncio.sleep(0.01)
        return [x, 2 * x]

    async def main() -> list[list[int]]:
        with pytest.raises(ClosedError, match="async with"):
            await double(3)
        async with manager:
            found = await asyncio.gather(*(double(3) for _ in range(8)))
            await double(4)
        return found

    assert [[3, 6]] * 8 == asyncio.run(main())
    assert [3, 4] == calls


def test_only_what_is_in_ram_is_read_in_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on the disk is read by a thread, and all tasks that wait for it get it."""
    manager = aio.MemoryManager("10 MB", "10 MB", 1, storage_path=tmp_path / "store")
    threads: list[threading.Thread] = []

    @aio.cached(manager, version=1, tier="cold")
    async def load(x: int) -> str:
        return str(x) * 100

    async def main() -> None:
        async with manager:
            plain = manager.sync
            await load(7)
            read = plain.retrieve

            def seen(*args: Any, **options: Any) -> Any:
                threads.append(threading.current_thread())
                return read(*args, **options)

            monkeypatch.setattr(plain, "retrieve", seen)
            assert ["7" * 100] * 4 == list(await asyncio.gather(*(load(7) for _ in range(4))))
            assert threads and threading.main_thread() not in threads
            threads.clear()
            plain.migrate(load.cache_key(7), "hot")
            assert "7" * 100 == await load(7)
            assert not threads
            assert 1 == load.cache_info().misses

    asyncio.run(main())


def test_results_expire(pass_time: PassTime) -> None:  # noqa: F811
    calls: list[int] = []

    @aio.cached(ttl=60, version="expiry")
    async def now(x: int) -> int:
        calls.append(x)
        return len(calls)

    async def main() -> None:
        assert 1 == await now(0) == await now(0)
        pass_time(61)
        assert 2 == await now(0)

    asyncio.run(main())
    memories.default().cleanup()


def test_bare_it_uses_the_default_manager() -> None:
    @aio.cached
    async def square(x: int) -> int:
        return x * x

    async def main() -> tuple[int, int]:
        return await square(5), await square(5)

    assert (25, 25) == asyncio.run(main())
    assert 1 == square.cache_info().hits
    memories.default().cleanup()


def test_what_is_no_coroutine_function_or_no_manager_is_refused() -> None:
    with pytest.raises(InvalidOptionTypeError, match=r"memories\.cached decorates it"):
        aio.cached(len)
    with pytest.raises(InvalidOptionTypeError, match="must be a manager"):
        aio.cached({})(asyncio.sleep)


async def ask(app: Any, path: str) -> Any:
    """Return what a GET gives, without a server."""
    sent: list[Any] = []
    answered = asyncio.Event()

    async def receive() -> Any:
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": query.encode(), "headers": [], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    answered.set()
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body)


def test_an_endpoint_keeps_its_parameters_and_its_dependencies(tmp_path: Path) -> None:
    """FastAPI reads the signature: it converts, checks and injects as before."""
    fastapi = pytest.importorskip("fastapi", reason="needs FastAPI")
    manager = aio.MemoryManager("10 MB", "10 MB", 1, storage_path=tmp_path / "store")
    calls: list[tuple[int, int, str]] = []

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with manager:
            yield

    def language(lang: str = "en") -> str:
        return lang

    async def page(
        number: int, request: Any, size: int = 10, lang: str = fastapi.Depends(language)
    ) -> dict[str, Any]:
        calls.append((number, size, lang))
        return {"path": request.url.path, "size": size, "lang": lang}

    page.__annotations__["request"] = fastapi.Request
    app = fastapi.FastAPI(lifespan=lifespan)
    decorated = aio.cached(manager, ttl=60, version=1, ignore=["request"])(page)
    assert inspect.signature(page) == inspect.signature(decorated)
    app.get("/pages/{number}")(decorated)

    async def main() -> None:
        async with app.router.lifespan_context(app):
            first = {"path": "/pages/7", "size": 10, "lang": "en"}
            assert [(200, first)] * 4 == list(
                await asyncio.gather(*(ask(app, "/pages/7") for _ in range(4)))
            )
            assert (200, {**first, "lang": "de"}) == await ask(app, "/pages/7?lang=de")
            assert 422 == (await ask(app, "/pages/seven"))[0]

    asyncio.run(main())
    assert [(7, 10, "en"), (7, 10, "de")] == calls
