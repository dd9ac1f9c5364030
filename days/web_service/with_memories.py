"""The service with `memories`: pages in the tiers of each worker, sessions on a node for all."""

from __future__ import annotations

import os
import secrets
import time
from typing import Any

from days.web_service.pages import PAGE_SECONDS, application, renders, until
from memories import DistributedMemoryManager

# No copies near by: a session that another worker has changed must be seen at once.
manager = DistributedMemoryManager(
    "64MB", "64MB", 1,
    nodes=[os.environ["NODE"]], replication_factor=1, near_cache=False, on_full="evict",
)  # fmt: skip


@manager.cache(ttl=PAGE_SECONDS, version=1)
def page(number: int) -> str:
    """Return a page, rendered at most a moment ago."""
    return renders(number)


def log_in() -> str:
    """Begin a session."""
    token = secrets.token_hex(16)
    manager.store_distributed(f"session/{token}", {"cart": [], "until": until()})
    return token


def session(token: str) -> Any:
    """Return the cart of a session, or None if it has ended."""
    found = manager.retrieve_distributed(f"session/{token}", None)
    return found["cart"] if found is not None and time.time() < found["until"] else None


def add(token: str, item: int) -> bool:
    """Put an item into the cart."""
    found = manager.retrieve_distributed(f"session/{token}", None)
    if found is None or time.time() >= found["until"]:
        return False
    found["cart"].append(item)
    manager.store_distributed(f"session/{token}", found)
    return True


app = application(log_in, session, add, page)
