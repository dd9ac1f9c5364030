"""The archive in an object store. See `backend.py` for what it keeps, `objectstore.py` for where."""

from memories.backends.bucket.backend import BucketBackend, open_bucket

__all__ = ["BucketBackend", "open_bucket"]
