"""The service with redis-py: pages and sessions on the server."""

from __future__ import annotations

import json
import os
import secrets
from typing import Any

import redis

from days.web_service.pages import PAGE_SECONDS, SESSION_SECONDS, application, renders

host, port = os.environ["NODE"].rsplit(":", 1)
server = redis.Redis(host, int(port))


def page(number: int) -> str:
    """Return a page, rendered at most a moment ago."""
    found = server.get(f"page/{number}")
    if found is None:
        found = renders(number).encode()
        server.set(f"page/{number}", found, px=int(1000 * PAGE_SECONDS))
    return found.decode()


def log_in() -> str:
    """Begin a session."""
    token = secrets.token_hex(16)
    server.set(f"session/{token}", json.dumps([]), px=int(1000 * SESSION_SECONDS))
    return token


def session(token: str) -> Any:
    """Return the cart of a session, or None if it has ended."""
    found = server.get(f"session/{token}")
    return None if found is None else json.loads(found)


def add(token: str, item: int) -> bool:
    """Put an item into the cart."""
    cart = session(token)
    if cart is None:
        return False
    cart.append(item)
    return bool(server.set(f"session/{token}", json.dumps(cart), keepttl=True, xx=True))


app = application(log_in, session, add, page)
