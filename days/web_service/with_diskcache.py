"""The service with diskcache: pages and sessions in one directory that the workers share."""

from __future__ import annotations

import os
import secrets
import time
from typing import Any

import diskcache

from days.web_service.pages import PAGE_SECONDS, SESSION_SECONDS, application, renders

cache = diskcache.Cache(os.environ["FOLDER"])


@cache.memoize(expire=PAGE_SECONDS)
def page(number: int) -> str:
    """Return a page, rendered at most a moment ago."""
    return renders(number)


def log_in() -> str:
    """Begin a session."""
    token = secrets.token_hex(16)
    cache.set(f"session/{token}", [], expire=SESSION_SECONDS)
    return token


def session(token: str) -> Any:
    """Return the cart of a session, or None if it has ended."""
    return cache.get(f"session/{token}")


def add(token: str, item: int) -> bool:
    """Put an item into the cart."""
    cart, ends = cache.get(f"session/{token}", expire_time=True)
    if cart is None:
        return False
    cart.append(item)
    return bool(cache.set(f"session/{token}", cart, expire=ends - time.time()))


app = application(log_in, session, add, page)
