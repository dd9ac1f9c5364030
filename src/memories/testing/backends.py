"""`BackendTests`: the conformance suite of backends, a class of tests to inherit from.

Define a fixture `backend`; for a durable backend set `durable` and define a fixture `reopen`, too.
The oracle is `MemoryBackend`, which must pass the same tests.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from memories.backends.base import Backend
from memories.backends.memory import MemoryBackend
from memories.errors import ClosedError, MemoriesError
from memories.model.record import Record, Terms
from memories.model.tiers import TierName

LARGE = 3 << 20
KEYS = ["a", "ä", "a/b", "../up", "CON", "%00", "a\nb", "😀", "x" * 4096, " ", "'; drop table", "Ä"]


def record_for(key: str, version: int, **fields: object) -> Record:
    """Return a record as the engine passes it to `write`."""
    defaults: dict[str, object] = {
        "tier": TierName.COLD,
        "size": 100,
        "stored_at": 1_700_000_000.0 + version,
        "kind": "bytes",
    }
    return Record(key=key, version=version, **{**defaults, **fields})  # type: ignore[arg-type]


def frame_for(data: bytes, *, pieces: int = 1) -> list[memoryview]:
    """Return `data` as a gather list."""
    step = max(1, -(-len(data) // pieces))
    return [memoryview(data)[at : at + step] for at in range(0, len(data), step)]


class BackendTests:
    """The contract of `Backend`."""

    durable: ClassVar[bool] = False

    def stored(self, size: int) -> int:
        """Return what a frame of `size` bytes takes: more where the backend encrypts it."""
        return size

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        """Yield an empty backend, and close it."""
        raise NotImplementedError("define a fixture `backend`")

    @pytest.fixture
    def reopen(self) -> Callable[[Backend], Backend]:
        """Return a function that closes a backend and opens its medium again."""
        raise NotImplementedError("define a fixture `reopen`")

    def test_a_frame_comes_back_as_it_was_given(self, backend: Backend) -> None:
        """Sizes around every threshold, in one piece and in many."""
        for version, size in enumerate([1, 63, 64, 65, 4095, 100_000, LARGE - 1, LARGE], start=1):
            data = os.urandom(size)
            for pieces in (1, 3, 700):
                kept = backend.write(record_for("k", version), frame_for(data, pieces=pieces))
                assert self.stored(size) == kept.stored
                found = backend.lookup("k")
                assert kept == found
                frame = backend.read(kept)
                assert frame.readonly
                assert data == frame

    @pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
    def test_any_key_is_its_own(self, backend: Backend, key: str) -> None:
        """A key is not interpreted as a path, a pattern or a query."""
        for version, other in enumerate(KEYS, start=1):
            backend.write(record_for(other, version), frame_for(other.encode()))
        found = backend.lookup(key)
        assert found is not None
        assert key.encode() == backend.read(found)
        backend.remove(key, 100)
        assert sorted(set(KEYS) - {key}) == sorted(record.key for record in backend.scan())

    def test_the_record_comes_back_with_all_its_terms(self, backend: Backend) -> None:
        """Terms travel with the version and survive a reopen."""
        terms = Terms(
            expires_at=12.5,
            metadata={"sensor": "S2A", "n": 3, "list": [1, None]},
            pinned=True,
            min_tier=TierName.WARM,
            max_tier=TierName.GLACIER,
            evictable=True,
        )
        kept = backend.write(record_for("k", 7, terms=terms, kind="ndarray"), frame_for(b"v"))
        assert terms == kept.terms
        assert kept == backend.lookup("k")

    def test_an_absent_key_is_none(self, backend: Backend) -> None:
        """None means absent; a backend never raises KeyError for it."""
        assert backend.lookup("absent") is None
        backend.remove("absent", 3)
        assert backend.lookup("absent") is None

    def test_the_higher_version_wins_whatever_the_order(self, backend: Backend) -> None:
        """A late demotion must not bring an old value back."""
        backend.write(record_for("k", 5), frame_for(b"new"))
        backend.write(record_for("k", 4), frame_for(b"old"))
        found = backend.lookup("k")
        assert found is not None
        assert (5, b"new") == (found.version, bytes(backend.read(found)))
        backend.remove("k", 4)
        assert backend.lookup("k") is not None

    def test_a_removed_key_does_not_come_back(self, backend: Backend) -> None:
        """A write of a version before the removal must be ignored."""
        backend.write(record_for("k", 5), frame_for(b"v"))
        backend.remove("k", 6)
        assert backend.lookup("k") is None
        backend.write(record_for("k", 5), frame_for(b"v"))
        assert backend.lookup("k") is None
        backend.write(record_for("k", 7), frame_for(b"w"))
        assert backend.lookup("k") is not None

    def test_a_frame_outlives_its_key(self, backend: Backend) -> None:
        """The bytes stay valid as long as there is a reference to them."""
        for size in (100, LARGE):
            data = os.urandom(size)
            kept = backend.write(record_for("k", 2 * size), frame_for(data))
            frame = backend.read(kept)
            backend.write(record_for("k", 2 * size + 1), frame_for(b"other"))
            backend.remove("k", 2 * size + 2)
            backend.sync()
            assert data == frame

    def test_the_buffers_are_not_kept(self, backend: Backend) -> None:
        """The caller may reuse its memory once `write` has returned."""
        for size in (100, LARGE):
            buffer = bytearray(os.urandom(size))
            data = bytes(buffer)
            kept = backend.write(record_for(f"k{size}", size), [memoryview(buffer)])
            buffer[:] = bytes(size)
            assert data == backend.read(kept)

    def test_scan_is_ordered_by_utf8(self, backend: Backend) -> None:
        """Paging needs ordered scans with a prefix and a start."""
        keys = ["b", "a/1", "a/2", "a/10", "a", "ab", "é", "z", "😀", "￿"]
        for version, key in enumerate(keys, start=1):
            backend.write(record_for(key, version), frame_for(b"v"))
        ordered = sorted(keys, key=str.encode)
        assert ordered == [record.key for record in backend.scan()]
        assert ["a/1", "a/10", "a/2"] == [record.key for record in backend.scan("a/")]
        assert ["a/10", "a/2"] == [record.key for record in backend.scan("a/", after="a/1")]
        assert ordered[4:] == [record.key for record in backend.scan(after=ordered[3])]

    def test_usage_counts_what_is_live(self, backend: Backend) -> None:
        """Budgets are enforced with these numbers."""
        assert (0, 0) == (backend.usage().live, backend.usage().keys)
        backend.write(record_for("a", 1), frame_for(bytes(1000)))
        backend.write(record_for("b", 2), frame_for(bytes(LARGE)))
        backend.write(record_for("a", 3), frame_for(bytes(500)))
        live = self.stored(500) + self.stored(LARGE)
        assert (live, 2) == (backend.usage().live, backend.usage().keys)
        assert backend.usage().physical >= backend.usage().live
        backend.remove("b", 4)
        assert (self.stored(500), 1) == (backend.usage().live, backend.usage().keys)

    def test_last_version_is_the_highest_ever(self, backend: Backend) -> None:
        """The engine continues counting from it."""
        assert backend.last_version() == 0
        backend.write(record_for("a", 5), frame_for(b"v"))
        backend.remove("a", 9)
        backend.remove("absent", 11)
        assert backend.last_version() == 11

    def test_closing_twice_is_allowed_and_use_after_it_is_not(self, backend: Backend) -> None:
        """Every later call has one defined outcome."""
        kept = backend.write(record_for("a", 1), frame_for(b"v"))
        backend.close()
        backend.close()
        with pytest.raises(ClosedError):
            backend.write(record_for("a", 2), frame_for(b"v"))
        with pytest.raises(ClosedError):
            backend.remove("a", 2)
        with pytest.raises(ClosedError):
            backend.lookup("a")
        assert kept.key == "a"

    def test_check_finds_nothing_wrong(self, backend: Backend) -> None:
        """A check of an intact medium reports nothing."""
        backend.write(record_for("a", 1), frame_for(b"v"))
        assert [] == backend.check()

    def test_it_behaves_as_the_oracle(self, backend: Backend) -> None:
        """A thousand random operations, compared with a dictionary in RAM."""
        chance, oracle = random.Random(7), MemoryBackend()
        for version in range(1, 1000):
            key = f"k{chance.randrange(40)}"
            stamp = version - chance.choice([0, 0, 0, 50]) if version > 50 else version
            if chance.random() < 0.3:
                backend.remove(key, stamp)
                oracle.remove(key, stamp)
            else:
                data = chance.randbytes(chance.choice([1, 64, 1000, 70_000]))
                backend.write(record_for(key, stamp), frame_for(data, pieces=2))
                oracle.write(record_for(key, stamp), frame_for(data))
        self.assert_same(oracle, backend)

    def test_many_threads_at_once(self, backend: Backend) -> None:
        """Each thread writes its own keys while all threads read all keys."""
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for version in range(1, 60):
                    key = f"{number}/{version % 5}"
                    data = f"{key}@{version}".encode() * 20
                    kept = backend.write(
                        record_for(key, version * 10 + number), frame_for(data, pieces=3)
                    )
                    assert data == backend.read(kept)
                    self.read_any(backend, number + version)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [] == failures
        assert backend.usage().keys == 30

    def read_any(self, backend: Backend, seed: int) -> None:
        """Read a key that another thread may be replacing: old, new or gone, never wrong."""
        found = backend.lookup(f"{seed % 6}/{seed % 5}")
        if found is None:
            return
        try:
            frame = bytes(backend.read(found))
        except MemoriesError:
            return
        assert frame.startswith(found.key.encode())

    def test_a_reopened_backend_holds_what_it_held(
        self, backend: Backend, request: pytest.FixtureRequest
    ) -> None:
        """Keys, versions, tombstones and usage survive."""
        if not self.durable:
            pytest.skip("this backend does not outlive its process")
        reopen: Callable[[Backend], Backend] = request.getfixturevalue("reopen")
        oracle = MemoryBackend()
        for version, size in enumerate([10, 5000, LARGE, 64, 1], start=1):
            data = os.urandom(size)
            backend.write(record_for(f"k{version}", version), frame_for(data))
            oracle.write(record_for(f"k{version}", version), frame_for(data))
        for each in (backend, oracle):
            each.remove("k2", 20)
        again = reopen(backend)
        self.assert_same(oracle, again)
        assert 20 == again.last_version()
        again.close()

    def assert_same(self, expected: Backend, actual: Backend) -> None:
        """Assert that two backends hold the same keys, versions and frames."""
        wanted = [(record.key, record.version) for record in expected.scan()]
        assert wanted == [(record.key, record.version) for record in actual.scan()]
        for record in actual.scan():
            oracle = expected.lookup(record.key)
            assert oracle is not None
            assert bytes(expected.read(oracle)) == bytes(actual.read(record))
        live = sum(self.stored(record.stored) for record in expected.scan())
        assert live == actual.usage().live
