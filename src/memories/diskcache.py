"""The interface of diskcache: `import memories.diskcache as diskcache`."""

from memories.integrations.diskcache import (
    DEFAULT_SETTINGS,
    EVICTION_POLICY,
    Averager,
    BoundedSemaphore,
    Cache,
    Deque,
    FanoutCache,
    Index,
    Lock,
    RLock,
    Timeout,
    barrier,
    memoize_stampede,
    throttle,
)

__all__ = [
    "DEFAULT_SETTINGS",
    "EVICTION_POLICY",
    "Averager",
    "BoundedSemaphore",
    "Cache",
    "Deque",
    "FanoutCache",
    "Index",
    "Lock",
    "RLock",
    "Timeout",
    "barrier",
    "memoize_stampede",
    "throttle",
]
