"""What serves a function and holds nothing that it could return: a lock, a logger, a pool.

Not connections, files and clients, which hand something over. The one idea: where a function refers
to one of these, or something that it refers to holds one, it is told by its type alone, so that two
locks do not make two functions.
"""

from __future__ import annotations

import functools
from typing import Any

# Bare objects are among them, which only mark, and the environment, of which `hashing` looks at the
# variables that a function names instead.
_TOOLS = frozenset(
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
# Packages whose objects are told what happens, and give nothing back.
_RECORDERS = frozenset({"logging", "loguru", "structlog", "opentelemetry", "prometheus_client"})


def serves(value: Any) -> bool:
    """Return whether an object holds nothing that a function could return."""
    kind: Any = type(value)
    return _is_tool(kind)


@functools.lru_cache(4096)
def _is_tool(kind: type) -> bool:
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name in _TOOLS or name.partition(".")[0] in _RECORDERS
