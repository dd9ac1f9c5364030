"""The dashboard as an ASGI application.

It can be mounted under another application, because the page uses relative URLs. Answers are JSON
of a `DashboardSource`; `/metrics` is for Prometheus, and `/healthz` for a supervisor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any

import msgspec

from memories.errors import ClosedError, KeyNotFoundError, MemoriesError
from memories.foundation.optional_imports import require
from memories.observe.dashboard.auth import Auth
from memories.observe.dashboard.source import ACTIONS, DashboardSource
from memories.observe.metrics.prometheus import CONTENT_TYPE, prometheus_text

FASTEST_SECONDS = 0.1
SLOWEST_SECONDS = 60.0
DEFAULT_SECONDS = 0.5
_MOST_BODY_BYTES = 64 << 10  # Of a request; a key has 4 KB at most.
STATIC = {
    "app.js": "text/javascript",
    "charts.js": "text/javascript",
    "style.css": "text/css",
    "uPlot.iife.min.js": "text/javascript",
    "uPlot.min.css": "text/css",
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Answer = Callable[[Any], Awaitable[Any]]


def make_app(
    source: DashboardSource, auth: Auth, ending: Callable[[], bool] = lambda: False
) -> Any:
    """Return the application; its streams end once `ending` returns True.

    Raises:
        MissingPackageError: starlette is not installed.
    """
    return _Pages(source, auth, ending).app()


class _Pages:
    def __init__(self, source: DashboardSource, auth: Auth, ending: Callable[[], bool]) -> None:
        self._source = source
        self._ending = ending
        self._auth = auth
        self._responses = require("starlette.responses", extra="dashboard")

    def app(self) -> Any:
        routing = require("starlette.routing", extra="dashboard")
        reads = {
            "/events": self.events, "/series": self.series, "/explain": self.explain,
            "/metrics": self.metrics,
        }  # fmt: skip
        routes = [
            routing.Route("/", self._addressed(self.page)),
            routing.Route("/static/{name}", self._addressed(self.static)),
            routing.Route("/healthz", self.health),
            *(
                routing.Route(path, self._addressed(self._authorized(one)))
                for path, one in reads.items()
            ),
            routing.Route("/act", self._addressed(self.act), methods=["POST"]),
        ]
        applications = require("starlette.applications", extra="dashboard")
        return applications.Starlette(routes=routes)

    async def page(self, request: Any) -> Any:
        del request
        return self._file("index.html", "text/html; charset=utf-8")

    async def static(self, request: Any) -> Any:
        name = request.path_params["name"]
        if name not in STATIC:
            return self._json({"error": "file not found"}, 404)
        return self._file(name, STATIC[name])

    async def events(self, request: Any) -> Any:
        seconds = _seconds(request.query_params.get("interval"))
        return self._responses.StreamingResponse(
            self._stream(request, seconds), media_type="text/event-stream", headers=HEADERS
        )

    async def _stream(self, request: Any, seconds: float) -> AsyncIterator[bytes]:
        import asyncio

        while not (self._ending() or await request.is_disconnected()):
            try:
                document = {**self._source.document(), "may_act": self._auth.may_act}
            except ClosedError:
                yield b'event: closed\ndata: {"state":"closed"}\n\n'
                return
            except MemoriesError as error:
                document = {"error": str(error)}
            yield b"data: " + msgspec.json.encode(document) + b"\n\n"
            for _ in range(round(seconds / FASTEST_SECONDS)):
                if not self._ending():
                    await asyncio.sleep(FASTEST_SECONDS)

    async def series(self, request: Any) -> Any:
        del request
        return self._json(self._source.series() or {})

    async def explain(self, request: Any) -> Any:
        key = request.query_params.get("key", "")
        try:
            return self._json(self._source.explain(key))
        except MemoriesError as error:
            return self._refused(error)

    async def act(self, request: Any) -> Any:
        if not self._auth.admits(request.headers, {}, act=True):
            words = "wrong token" if self._auth.may_act else "started without a token: read-only"
            return self._json({"error": words}, 403)
        try:
            asked = msgspec.json.decode(await _body(request))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            return self._json({"error": "the body must be a JSON object of action and key"}, 400)
        action = asked.get("action") if isinstance(asked, dict) else None
        if not isinstance(action, str) or action not in ACTIONS:
            return self._json({"error": f"the action must be one of {', '.join(ACTIONS)}"}, 400)
        key = asked.get("key")
        if not isinstance(key, str):
            return self._json({"error": "the key must be a text"}, 400)
        try:
            tier = self._source.act(action, key)
        except MemoriesError as error:
            return self._refused(error)
        return self._json({"tier": tier})

    async def metrics(self, request: Any) -> Any:
        del request
        try:
            text = prometheus_text(self._source.document())
        except MemoriesError as error:
            return self._refused(error)
        return self._responses.Response(text, headers={**HEADERS, "Content-Type": CONTENT_TYPE})

    async def health(self, request: Any) -> Any:
        del request
        try:
            state = self._source.document()["state"]
        except MemoriesError as error:
            return self._json({"state": "unavailable", "error": str(error)}, 503)
        return self._json({"state": state})

    def _addressed(self, answer: Answer) -> Answer:
        async def addressed(request: Any) -> Any:
            host = request.headers.get("host", "")
            if self._auth.knows(host):
                return await answer(request)
            words = f"not addressed to a known name; start it with hosts=[{host!r}] if it is yours"
            return self._json({"error": words}, 403)

        return addressed

    def _authorized(self, answer: Answer) -> Answer:
        async def authorized(request: Any) -> Any:
            if self._auth.admits(request.headers, request.query_params, act=False):
                return await answer(request)
            return self._json({"error": "show the token: ?token=... or Authorization: Bearer"}, 401)

        return authorized

    def _refused(self, error: MemoriesError) -> Any:
        absent = isinstance(error, KeyNotFoundError)
        return self._json({"error": str(error)}, 404 if absent else 409)

    def _json(self, document: Mapping[str, Any], status: int = 200) -> Any:
        return self._responses.Response(
            msgspec.json.encode(document),
            status_code=status,
            headers={**HEADERS, "Content-Type": "application/json"},
        )

    def _file(self, name: str, kind: str) -> Any:
        data = files("memories.observe.dashboard").joinpath("static", name).read_bytes()
        return self._responses.Response(data, headers={**HEADERS, "Content-Type": kind})


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text or DEFAULT_SECONDS)
    except ValueError:
        return DEFAULT_SECONDS
    return min(SLOWEST_SECONDS, max(FASTEST_SECONDS, seconds))


async def _body(request: Any) -> bytes:
    """Return the body of a request.

    Raises:
        ValueError: it is too large for what is asked here.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BODY_BYTES:
            raise ValueError(f"the body has more than {_MOST_BODY_BYTES} bytes")
    return bytes(body)
