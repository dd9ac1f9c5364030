"""The archive in an object store. `backend.py` says what it keeps, `objectstore.py` where."""

from __future__ import annotations

from memories.backends.bucket.backend import BucketBackend
from memories.backends.bucket.options import BucketLimits

__all__ = ["BucketBackend", "BucketLimits"]
