"""What tests of the bucket share: records, frames, and a store that counts, and fails on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from memories.backends.bucket.objectstore import BeforeSend, Buffer, ObjectStore, Stat
from memories.model.record import Record
from memories.model.tiers import TierName


def record(key: str, version: int, size: int = 0) -> Record:
    """Return the record of a version that is about to be written."""
    return Record(
        key=key, version=version, tier=TierName.GLACIER, size=size, stored_at=1.0, kind="bytes"
    )


def frame(data: bytes) -> list[memoryview]:
    """Return `data` as a gather list of two."""
    half = len(data) // 2
    return [memoryview(data[:half]), memoryview(data[half:])]


class WatchedStore(ObjectStore):
    """Another store whose requests are counted, and may be made to fail by `fault`."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.url = inner.url
        self.count: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.fault: Callable[[str, str], None] = lambda action, name: None
        self.after: Callable[[str], None] = lambda name: None  # When a put has arrived.

    @property
    def requests(self) -> int:
        return sum(self.count.values())

    def put(self, name: str, buffers: Sequence[Buffer], sending: BeforeSend | None = None) -> None:
        self._note("put", name, sum(memoryview(b).nbytes for b in buffers))
        self.inner.put(name, buffers, sending)
        self.after(name)

    def put_if(self, name: str, data: bytes, tag: str | None) -> str:
        self._note("put_if", name, len(data))
        return self.inner.put_if(name, data, tag)

    def get(self, name: str) -> tuple[bytes, str]:
        self._note("get", name)
        return self.inner.get(name)

    def get_range(self, name: str, offset: int, length: int) -> Buffer:
        self._note("get_range", name, length)
        return self.inner.get_range(name, offset, length)

    def delete(self, name: str) -> None:
        self._note("delete", name)
        self.inner.delete(name)

    def list(self, prefix: str) -> Iterator[Stat]:
        self._note("list", prefix)
        return self.inner.list(prefix)

    def _note(self, action: str, name: str, size: int = 0) -> None:
        self.fault(action, name)
        self.count[action] += 1
        self.bytes[action] += size
