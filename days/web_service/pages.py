"""What every one of the programs serves: pages that take a while to render, and the routes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

SESSION_SECONDS = float(os.environ.get("SESSION_SECONDS", "2"))
PAGE_SECONDS = float(os.environ.get("PAGE_SECONDS", "1"))


def render(number: int) -> str:
    """Return a page of about 40 kB; that takes a millisecond or two."""
    rows = (sha256(f"{number}/{row}".encode()).hexdigest() for row in range(800))
    return "<table>" + "".join(f"<tr><td>{row}</td></tr>" for row in rows) + "</table>"


def renders(number: int) -> str:
    """Render a page, and note that it was rendered."""
    with open(os.environ["RENDERS"], "ab") as file:  # noqa: PTH123 - appends are atomic
        file.write(b".")
    return render(number)


def application(
    log_in: Callable[[], str],
    session: Callable[[str], Any],
    add: Callable[[str, int], bool],
    page: Callable[[int], str],
) -> Starlette:
    """Return the service: `log_in` makes a session, `add` puts an item into its cart."""

    def do_log_in(request: Request) -> Response:
        return PlainTextResponse(log_in())

    def do_add(request: Request) -> Response:
        done = add(request.path_params["token"], request.path_params["item"])
        return Response(status_code=200 if done else 401)

    def do_cart(request: Request) -> Response:
        found = session(request.path_params["token"])
        return Response(status_code=401) if found is None else JSONResponse(found)

    def do_page(request: Request) -> Response:
        if session(request.path_params["token"]) is None:
            return Response(status_code=401)
        return PlainTextResponse(page(request.path_params["number"]))

    return Starlette(
        routes=[
            Route("/login", do_log_in, methods=["POST"]),
            Route("/{token}/cart/{item:int}", do_add, methods=["POST"]),
            Route("/{token}/cart", do_cart),
            Route("/{token}/page/{number:int}", do_page),
        ]
    )


def until() -> float:
    """Return when a session that begins now ends."""
    return time.time() + SESSION_SECONDS
