"""The archive in an object store. `backend.py` says what it keeps, `objectstore.py` where."""

from memories.backends.bucket.backend import BucketBackend, open_bucket

__all__ = ["BucketBackend", "open_bucket"]
