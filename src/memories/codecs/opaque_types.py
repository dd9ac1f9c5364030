"""Types whose objects have no content that a function could return: locks, loggers, pools.

In the hash of a function such an object counts by its type alone, so that two functions that differ
only in their locks are equal. Connections, files and clients return data and are not among them.
"""

from __future__ import annotations

import functools
from typing import Any

# A bare `object` is a marker only. Of the environment, `function_hash` hashes the variables that a
# function names.
_OPAQUE = frozenset(
    {
        "_thread.lock", "_thread.RLock", "threading.Barrier", "threading.BoundedSemaphore",
        "threading.Condition", "threading.Event", "threading.Semaphore",
        "asyncio.locks.Barrier", "asyncio.locks.BoundedSemaphore", "asyncio.locks.Condition",
        "asyncio.locks.Event", "asyncio.locks.Lock", "asyncio.locks.Semaphore",
        "multiprocessing.synchronize.BoundedSemaphore", "multiprocessing.synchronize.Condition",
        "multiprocessing.synchronize.Event", "multiprocessing.synchronize.Lock",
        "multiprocessing.synchronize.RLock", "multiprocessing.synchronize.Semaphore",
        "concurrent.futures.thread.ThreadPoolExecutor",
        "concurrent.futures.process.ProcessPoolExecutor", "multiprocessing.pool.Pool",
        "multiprocessing.pool.ThreadPool", "joblib.parallel.Parallel", "rich.console.Console",
        "builtins.object", "os._Environ",
    }
)  # fmt: skip
# Packages whose objects record events and return nothing.
_RECORDERS = frozenset({"logging", "loguru", "structlog", "opentelemetry", "prometheus_client"})


def is_opaque(value: Any) -> bool:
    """Return whether an object has no content that a function could return."""
    kind: Any = type(value)
    return _is_opaque_type(kind)


@functools.lru_cache(4096)
def _is_opaque_type(kind: type) -> bool:
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name in _OPAQUE or name.partition(".")[0] in _RECORDERS
