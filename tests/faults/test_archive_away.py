"""A bucket that does not answer when the manager is made, and machines that only read.

Other tiers serve, what is archived is `UnavailableError` at once and never absent, what is stored
meanwhile is newer than whatever comes to light, and the archive comes back by itself.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path

import numpy as np
import pytest
from tests.support.buckets.fixtures import Make, every_warning, make, s3, s3_proxy, s3_url  # noqa: F401
from tests.support.buckets.proxy import Fault, MisbehavingProxy
from tests.support.waiting import until

from memories import (
    InvalidOptionError,
    KeyNotFoundError,
    MemoryManager,
    RefusedError,
    StorageError,
    StoreLockedError,
    UnavailableError,
)
from memories.backends.bucket import BucketBackend
from memories.core import archive

LARGE = np.random.default_rng(1).random(60_000)


@pytest.fixture
def filled(make: Make) -> None:  # noqa: F811
    """A large and a small value in the archive, and one in cold."""
    with make("home") as writer:
        writer.store("large", LARGE, "glacier")
        for _ in range(20):  # Its numbers are beyond those that a machine begins with.
            writer.store("cold", "near", "cold")
        writer.store("small", "archived", "glacier")


def is_back(manager: MemoryManager) -> bool:
    return "away" not in repr(manager)


def add(left: int, right: int) -> int:
    return left + right


FAULTS = {"reset": Fault(reset=True), "hangs": Fault(hang=True), "503": Fault(status=503)}


@pytest.mark.server
@pytest.mark.parametrize("name", FAULTS)
def test_a_store_opens_while_its_bucket_is_away(
    make: Make,  # noqa: F811
    filled: None,
    s3_proxy: MisbehavingProxy,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    every_warning: pytest.LogCaptureFixture,  # noqa: F811
    name: str,
) -> None:
    """A service that restarts during an outage of its bucket must not stay down with it."""
    monkeypatch.setattr(archive, "AWAY_SECONDS", 3.0)
    s3_proxy.fault = lambda request: FAULTS[name]
    begun = time.monotonic()
    manager = make("home")
    assert time.monotonic() - begun < 30
    assert "the archive does not answer" in every_warning.text
    assert "object storage, away" in repr(manager)
    assert "near" == manager.retrieve("cold")
    manager.store("hot", 1)
    manager.store("colder", 2, "cold")
    assert (1, 2) == (manager.retrieve("hot"), manager.retrieve("colder"))
    begun = time.monotonic()
    for key in ("large", "small"):
        assert key in manager
        assert "glacier" == manager.get_tier(key)
        with pytest.raises(UnavailableError, match=f"key '{key}' .* tried again by itself"):
            manager.retrieve(key)
    with pytest.raises(UnavailableError, match=r"'more' .* was not archived"):
        manager.store("more", LARGE, "glacier")
    with pytest.raises(UnavailableError):
        manager.retrieve_many(["cold", "large"])
    with pytest.raises(KeyNotFoundError):
        manager.retrieve("never stored")
    [problem] = manager.check()
    assert problem.unchecked
    assert "2 archived values were not looked at" in problem.what
    assert time.monotonic() - begun < 20, "a caller that asks for an archived value does not wait"
    manager.store("small", "overwritten")
    s3_proxy.fault = lambda request: None
    if name == "hangs":
        s3_proxy.cut()
    until(lambda: is_back(manager))
    assert np.array_equal(LARGE, manager.retrieve("large"))
    assert "overwritten" == manager.retrieve("small")
    manager.store("more", LARGE, "glacier")
    assert [] == manager.check()
    manager.cleanup()
    again = make("home")
    assert ["cold", "colder", "hot", "large", "more", "small"] == list(again)
    assert "overwritten" == again.retrieve("small")


@pytest.mark.server
def test_a_fresh_machine_does_not_call_absent_what_it_could_not_look_up(
    make: Make,  # noqa: F811
    filled: None,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """`KeyNotFoundError` would have its caller store a default over an archived value."""
    s3_proxy.fault = lambda request: Fault(reset=True)
    fresh = make("fresh")
    fresh.store("own", 1)
    fresh.store("small", "newer", "cold")
    assert 1 == fresh.retrieve("own")
    for look in (
        lambda: fresh.retrieve("large"),
        lambda: fresh.retrieve("large", None),
        lambda: "large" in fresh,
        lambda: fresh.get_tier("large"),
        lambda: fresh.delete("large"),
        lambda: fresh.setdefault("large", 0),
        lambda: fresh.store("large", 0, if_version=0),
    ):
        with pytest.raises(UnavailableError, match="'large' is in no tier on this machine"):
            look()
    assert 7 == fresh.cache(add)(3, 4), "what can be computed is no reason to fail"
    s3_proxy.fault = lambda request: None
    until(lambda: is_back(fresh))
    assert np.array_equal(LARGE, fresh.retrieve("large"))
    assert "newer" == fresh.retrieve("small"), "what was stored meanwhile is newer"
    with pytest.raises(KeyNotFoundError):
        fresh.retrieve("cold")
    fresh.delete("small")
    fresh.cleanup()
    with pytest.raises(KeyNotFoundError):
        make("another").retrieve("small")


@pytest.mark.server
def test_a_writer_that_took_over_meanwhile_is_said_so(
    make: Make,  # noqa: F811
    filled: None,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """Two writers are refused, whenever the second one finds out."""
    s3_proxy.fault = lambda request: Fault(reset=True)
    manager = make("home")
    other = make("other", direct=True, takeover=True)
    s3_proxy.fault = lambda request: None
    bucket = manager._services.backends[-1]
    until(lambda: isinstance(bucket.away, StoreLockedError))  # type: ignore[attr-defined]
    with pytest.raises(StoreLockedError, match="is being written by process"):
        manager.retrieve("large")
    assert "near" == manager.retrieve("cold")
    other.store("other", LARGE, "glacier")
    other.cleanup()
    until(lambda: is_back(manager))
    assert np.array_equal(LARGE, manager.retrieve("other"))


@pytest.mark.server
def test_a_manager_ends_while_its_bucket_is_away(
    make: Make,  # noqa: F811
    filled: None,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """It has nothing to say to the bucket, and nothing waits for it."""
    s3_proxy.fault = lambda request: Fault(reset=True)
    manager = make("home")
    manager.store("kept", 1)
    begun = time.monotonic()
    manager.cleanup()
    assert time.monotonic() - begun < 30
    again = make("home")
    assert 1 == again.retrieve("kept")
    del again, manager
    gc.collect()


@pytest.mark.server
def test_any_number_of_machines_read_an_archive_by_its_url(
    make: Make,  # noqa: F811
    filled: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They need no store of their own, take no lease, and follow the writer."""
    monkeypatch.setattr(archive, "FOLLOW_SECONDS", 0.2)
    writer = make("home")
    readers = [make(None) for _ in range(3)]
    for reader in readers:
        assert ["large", "small"] == list(reader)
        assert np.array_equal(LARGE, reader.retrieve("large"))
        with pytest.raises(StorageError, match="read_only=True"):
            reader.store("x", 1)
    writer.store("small", "replaced", "glacier")
    writer.delete("large")
    writer.store("new", LARGE[::-1], "glacier")
    writer.flush()
    for reader in readers:
        until(lambda reader=reader: ["new", "small"] == list(reader))
        assert "replaced" == reader.retrieve("small")
        assert np.array_equal(LARGE[::-1], reader.retrieve("new"))
        assert [] == reader.check()
    with pytest.raises(KeyNotFoundError):
        readers[0].retrieve("large")


@pytest.mark.server
def test_a_reader_opens_while_the_bucket_is_away(
    make: Make,  # noqa: F811
    filled: None,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """It knows nothing until the bucket answers, and does not pretend otherwise."""
    s3_proxy.fault = lambda request: Fault(reset=True)
    reader = make(None)
    with pytest.raises(UnavailableError):
        reader.retrieve("large")
    s3_proxy.fault = lambda request: None
    until(lambda: is_back(reader))
    assert np.array_equal(LARGE, reader.retrieve("large"))


def test_a_second_writer_takes_over_on_request(tmp_path: Path) -> None:
    """`takeover=True` is for a writer that is gone and cannot be asked; the old one is refused."""
    where = {"glacier_url": str(tmp_path / "bucket"), "migration": False}
    first = BucketBackend(tmp_path / "bucket", directory=tmp_path / "first")
    with pytest.raises(StoreLockedError):
        MemoryManager(1, 1, 1, True, storage_path=tmp_path / "s", **where)  # type: ignore[arg-type]
    second = MemoryManager(
        1, 1, 1, True, storage_path=tmp_path / "s", takeover=True, **where  # type: ignore[arg-type]
    )  # fmt: skip
    second.store("mine", LARGE, "glacier")
    second.cleanup()
    with pytest.raises(StoreLockedError, match="another store has become the writer"):
        first.maintain()
        first._session.lease.renew()
    with pytest.raises(StoreLockedError):
        first.close()
    with pytest.raises(InvalidOptionError, match="takeover=True is for a writer"):
        MemoryManager(glacier_memory_enabled=True, read_only=True, takeover=True, **where)  # type: ignore[arg-type]


def test_a_reader_of_nothing_gets_an_error(tmp_path: Path) -> None:
    """A URL with a typing mistake is no archive without keys."""
    with pytest.raises(RefusedError, match="nothing was ever written there"):
        MemoryManager(
            glacier_memory_enabled=True, glacier_url=str(tmp_path / "typo"), read_only=True
        )
    assert not (tmp_path / "typo").exists()
    with pytest.raises(InvalidOptionError, match="or the glacier_url of an archive"):
        MemoryManager(glacier_memory_enabled=True, read_only=True)


def test_a_reader_needs_no_word_but_the_url(tmp_path: Path) -> None:
    """What else could it mean."""
    url = str(tmp_path / "bucket")
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "s", glacier_url=url) as writer:
        writer.store("k", LARGE, "glacier")
        writer.flush()
        with MemoryManager(glacier_url=url, read_only=True) as reader:
            assert np.array_equal(LARGE, reader.retrieve("k"))


def test_a_directory_that_is_not_mounted_is_away_and_not_empty(tmp_path: Path) -> None:
    """An archive on a share that is not there looks like one whose every object was deleted."""
    share, away = tmp_path / "share", tmp_path / "away"

    def open_(**options: object) -> MemoryManager:
        return MemoryManager(
            1, 1, 1, True, storage_path=tmp_path / "s", glacier_url=str(share),
            migration=False, **options,  # type: ignore[arg-type]
        )  # fmt: skip

    with open_() as manager:
        manager.store("k", LARGE, "glacier")
    share.rename(away)
    with open_() as manager:
        with pytest.raises(UnavailableError, match="is it mounted"):
            manager.retrieve("k")
        assert manager.check(repair=True)[0].unchecked
        assert not share.exists(), "nothing is written where the share should be"
        away.rename(share)
        until(lambda: is_back(manager))
        assert np.array_equal(LARGE, manager.retrieve("k"))
        share.rename(away)
        assert manager.check(repair=True)[0].unchecked
        with pytest.raises(UnavailableError, match="is it mounted"):
            manager.store("more", LARGE, "glacier")
        with pytest.raises(UnavailableError, match="is it mounted"):
            manager.retrieve("k")
        assert not share.exists()
        away.rename(share)
        assert [] == manager.check()
        assert np.array_equal(LARGE, manager.retrieve("k"))
    share.rename(away)
    with open_(takeover=True) as manager:
        [problem] = manager.check(repair=True)
        assert ("k", True) == (problem.key, problem.repaired)
        with pytest.raises(KeyNotFoundError):
            manager.retrieve("k")
