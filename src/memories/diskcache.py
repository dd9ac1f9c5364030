"""The interface of diskcache: `import memories.diskcache as diskcache`."""

from memories.errors import BusyError as Timeout
from memories.integrations.diskcache.cache import Cache
from memories.integrations.diskcache.persistent import CacheIndex as Index
from memories.integrations.diskcache.persistent import Deque, FanoutCache
from memories.integrations.diskcache.recipes import (
    Averager,
    BoundedSemaphore,
    Lock,
    RLock,
    barrier,
    memoize_stampede,
    throttle,
)
from memories.integrations.diskcache.settings import DEFAULT_SETTINGS, EVICTION_POLICY

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
