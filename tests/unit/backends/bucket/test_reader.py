"""Reads of the archive through the manager: parts of a value, many values, values in a class."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import s3, s3_proxy, s3_url  # noqa: F401
from tests.support.buckets.proxy import Fault, MisbehavingProxy, Request

from memories import ArchivedError, CorruptDataError, KeyNotFoundError, MemoryManager
from memories.backends.bucket import reader
from memories.errors import InvalidOptionError

pytestmark = pytest.mark.server
Open = Callable[..., MemoryManager]


@pytest.fixture
def opened(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
    tmp_path: Path,
) -> Iterator[Open]:
    """Open a manager whose archive lies behind the proxy."""
    managers: list[MemoryManager] = []

    def open_(home: str = "home", **options: object) -> MemoryManager:
        managers.append(
            MemoryManager(
                1, 1, 1, True, storage_path=tmp_path / home, glacier_url=s3_url, migration=False,
                prefetch="off",
                storage_options=s3.storage_options(s3_proxy.endpoint), **options,  # type: ignore[arg-type]
            )
        )  # fmt: skip
        return managers[-1]

    yield open_
    s3_proxy.fault = lambda request: None
    for manager in managers:
        manager.cleanup()


def field(rows: int) -> np.ndarray:
    """Return a field of 16 KB a row that is neither noise nor nothing."""
    steps = np.random.default_rng(3).integers(-9, 10, (rows, 2048))
    return np.cumsum(steps, axis=1).astype("<f8") / 16


@pytest.mark.parametrize(("compression", "rows"), [("auto", 4000), ("none", 1500)])
def test_a_region_transfers_only_the_chunks_it_touches(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
    compression: str,
    rows: int,
) -> None:
    """One per cent of a large array must not cost the whole of it."""
    manager = opened(compression={"glacier": compression})
    whole = field(rows)  # 64 rows a chunk
    manager.store("a", whole, "glacier")
    taken = manager.stats().tiers["glacier"].used_bytes
    before = s3_proxy.sent_bytes
    for region in (np.s_[1000:1060], np.s_[17:77, 5], np.s_[-60:]):
        assert np.array_equal(whole[region], manager.retrieve("a", region=region))
    transferred = s3_proxy.sent_bytes - before
    assert transferred < 3 * (2 * 64 / rows * taken + 100_000)
    assert "glacier" == manager.get_tier("a")


def test_a_region_of_what_lies_in_a_pack_is_read_too(opened: Open) -> None:
    """Small values come by one request, whole."""
    manager = opened()
    manager.store("a", field(3), "glacier")
    manager.flush()
    assert np.array_equal(field(3)[1:, 7], manager.retrieve("a", region=np.s_[1:, 7]))
    assert manager.retrieve("a", region=np.s_[0], copy=True).flags.writeable
    manager.store("b", {"no": "array", "but": field(60)}, "glacier")
    with pytest.raises(InvalidOptionError, match="region= needs a plain NumPy array"):
        manager.retrieve("b", region=np.s_[0])


def test_a_damaged_chunk_is_found_when_a_region_touches_it(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """And only then: the rest of the array is not held up by it."""
    manager = opened(compression={"glacier": "none"})
    manager.store("a", field(600), "glacier")

    def flip(request: Request) -> Fault | None:
        return Fault(flip=5_000_000) if request.method == "GET" else None

    assert 16384 == manager.retrieve("a", region=np.s_[0]).nbytes
    s3_proxy.fault = flip
    with pytest.raises(CorruptDataError, match="'a' is damaged"):
        manager.retrieve("a")
    for byte, what in ((1000, "'a' is damaged"), (100, "the head of a frame is damaged")):
        s3_proxy.fault = lambda request, byte=byte: Fault(flip=byte)  # type: ignore[misc]
        with pytest.raises(CorruptDataError, match=what):
            manager.retrieve("a", region=np.s_[100])


def test_many_values_over_a_slow_line_come_together(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """64 values at a second of latency each are less than a minute."""
    manager = opened()
    values = {f"k{n}": np.random.default_rng(n).bytes(300_000) for n in range(64)}
    manager.store_many(values, "glacier")
    manager.store("hot", "here", "hot")
    s3_proxy.fault = lambda request: Fault(delay_seconds=1.0)
    begun = time.monotonic()
    got = manager.retrieve_many(["hot", *values])
    assert time.monotonic() - begun < 60
    assert ["hot", *values] == list(got)
    assert {"hot": "here"} | values == got
    with pytest.raises(KeyNotFoundError, match="'absent'"):
        manager.retrieve_many(["k1", "absent"])


class ArchiveClass:
    """What S3 says of objects in Glacier, before and after their restore; a double."""

    def __init__(self, polls: int) -> None:
        self.polls = polls
        self.requested: list[str] = []

    def __call__(self, request: Request) -> Fault | None:
        if request.method == "POST" and "restore" in request.path:
            self.requested.append(request.path.partition("?")[0])
            return Fault(status=202)
        if request.method == "GET" and "objects/" in request.path:
            self.polls -= bool(self.requested)
            return Fault(status=403, code="InvalidObjectState") if self.polls >= 0 else None
        return None


@pytest.mark.skipif(importlib.util.find_spec("boto3") is None, reason="boto3 is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")
def test_retrieve_restores_what_is_archived_when_asked_to_wait(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without `timeout` it says how and how long; with it the restores start all at once."""
    monkeypatch.setattr(reader, "_FIRST_PAUSE_SECONDS", 0.05)
    manager = opened()
    values = {f"k{n}": np.random.default_rng(n).bytes(300_000) for n in range(3)}
    manager.store_many(values, "glacier")
    archive = s3_proxy.fault = ArchiveClass(polls=8)
    with pytest.raises(ArchivedError, match=r"timeout=.*12 hours") as caught:
        manager.retrieve("k0", default=None)
    assert "'k0'" in str(caught.value)
    with pytest.raises(ArchivedError):
        manager.retrieve_many(values)
    assert [] == archive.requested, "asking costs money"
    assert values == manager.retrieve_many(values, timeout=100)
    assert 3 == len(archive.requested) == len(set(archive.requested))
    s3_proxy.fault = ArchiveClass(polls=2)
    assert values["k1"] == manager.retrieve("k1", timeout=100)
    s3_proxy.fault = ArchiveClass(polls=10**9)
    with pytest.raises(ArchivedError, match="not restored in time"):
        manager.retrieve("k1", timeout=0.3)
    with pytest.raises(InvalidOptionError, match="timeout=-1"):
        manager.retrieve("k1", timeout=-1)


def test_what_sinks_to_the_archive_is_compressed_anew(opened: Open) -> None:
    """Cold is read back soon, the archive is paid by the byte."""
    manager = opened()
    values: dict[str, Any] = {
        "field": field(200),
        "text": "to and fro " * 30_000,
        "noise": np.random.default_rng(0).bytes(400_000),
        "mixed": {"a": field(50), "n": 1},
    }
    for key, value in values.items():
        manager.store(key, value, "cold")
    stored = {key: manager._hierarchy.lookup(key).stored for key in values}  # type: ignore[union-attr]
    for key in values:
        manager.migrate(key, "glacier")
    anew = {key: manager._hierarchy.lookup(key).stored for key in values}  # type: ignore[union-attr]
    for key in ("field", "text", "mixed"):
        assert anew[key] < 0.7 * stored[key], key
    assert stored["noise"] == anew["noise"]
    assert np.array_equal(values["field"], manager.retrieve("field"))
    assert values["text"] == manager.retrieve("text")
    assert values["noise"] == manager.retrieve("noise")
    assert np.array_equal(values["mixed"]["a"], manager.retrieve("mixed")["a"])
