"""A manager whose archive fails: other tiers serve, nothing is lost, and children fail at once."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import s3, s3_proxy, s3_url  # noqa: F401
from tests.support.buckets.kit import WatchedStore, frame, record
from tests.support.buckets.proxy import Fault, MisbehavingProxy

from memories import ForkedError, MemoryManager, UnavailableError
from memories.backends.bucket import BucketBackend, BucketLimits
from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.objectstore import Stat

SECRET = "T0psecretT0psecret"
DATA = random.Random(5).randbytes(600_000)


@pytest.fixture
def manager(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
    tmp_path: Path,
) -> Iterator[MemoryManager]:
    options = s3.storage_options(s3_proxy.endpoint) | {
        "timeout": "1s", "skip_signature": None,
        "access_key_id": "AKIA0123456789ABCDEF", "secret_access_key": SECRET,
    }  # fmt: skip
    manager = MemoryManager(
        1, 1, 1, True, storage_path=tmp_path / "s", glacier_url=s3_url, storage_options=options,
        migration=False, prefetch="off",
    )  # fmt: skip
    yield manager
    s3_proxy.fault = lambda request: None
    manager.cleanup()


@pytest.mark.server
def test_a_demotion_that_fails_keeps_the_cold_copy_and_other_tiers_serve(
    manager: MemoryManager,
    s3_proxy: MisbehavingProxy,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bucket that is away costs the archive, for as long as it is away, and nothing else."""
    caplog.set_level(logging.DEBUG)
    manager.store("k", DATA, "cold")
    manager.store("hot", "here", "hot")
    s3_proxy.fault = lambda request: Fault(status=503, code="SlowDown")
    with pytest.raises(UnavailableError, match=r"key 'k' .* was not archived") as caught:
        manager.migrate("k", "glacier")
    assert "cold" == manager.get_tier("k")
    assert DATA == manager.retrieve("k")
    assert "here" == manager.retrieve("hot")
    manager.store("new", DATA, "cold")
    shown = caplog.text + str(caught.value) + repr(caught.value.__cause__) + repr(manager)
    assert SECRET not in shown
    s3_proxy.fault = lambda request: None
    manager.migrate("k", "glacier")
    assert ("glacier", DATA) == (manager.get_tier("k"), manager.retrieve("k"))


@pytest.mark.server
def test_a_line_that_hangs_is_cut_off(
    manager: MemoryManager,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """Five tries of a second and the waits between them, not for ever; then all goes on."""
    manager.store("k", DATA, "glacier")
    s3_proxy.fault = lambda request: Fault(hang=True) if request.method == "GET" else None
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="the request timed out"):
        manager.retrieve("k")
    assert time.monotonic() - begun < 60
    s3_proxy.fault = lambda request: None
    assert DATA == manager.retrieve("k")


@pytest.mark.server
def test_a_forked_child_fails_at_once_and_reads_what_is_in_ram(manager: MemoryManager) -> None:
    """The client of the archive would hang there for ever."""
    manager.store("far", DATA, "glacier")
    manager.store("near", "here", "hot")
    assert DATA == manager.retrieve("far")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Other threads: that is the point.
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        words = []
        for action in (
            lambda: manager.retrieve("far"),
            lambda: manager.retrieve_many(["near", "far"]),
            lambda: manager.store("x", 1, "glacier"),
        ):
            words.append(_raised(action))
        os.write(writing, " ".join([*words, manager.retrieve("near")]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        words = stream.read().split()
    os.waitpid(child, 0)
    assert [ForkedError.__name__] * 3 + ["here"] == words


def _raised(action: Callable[[], object]) -> str:
    try:
        action()
    except BaseException as error:
        return type(error).__name__
    return "nothing"


class LaggingStore(WatchedStore):
    """A store whose listing shows nothing of the last while."""

    lagging = False

    def list(self, prefix: str) -> Iterator[Stat]:
        return iter([]) if self.lagging else super().list(prefix)


class MistakenStore(WatchedStore):
    """A store that answers a conditional write with a tag that is not the object's."""

    def put_if(self, name: str, data: bytes, tag: str | None) -> str:
        super().put_if(name, data, tag)
        return '"wrong"'


def test_a_listing_that_lags_hides_nothing_from_the_store_that_wrote(tmp_path: Path) -> None:
    """Its own map says what there is; a listing is for machines that have none."""
    store = LaggingStore(DirectoryStore(tmp_path / "bucket"))
    backend = BucketBackend(store, directory=tmp_path / "home")
    backend.write(record("k", 1), frame(DATA))
    store.lagging = True
    backend.write(record("k", 2), frame(DATA[::-1]))
    backend.close()
    again = BucketBackend(store, directory=tmp_path / "home")
    found = again.lookup("k")
    assert found is not None
    assert DATA[::-1] == bytes(again.read(found))
    again.close()


def test_a_wrong_tag_is_not_taken_for_a_lost_lease(tmp_path: Path) -> None:
    """What the lease itself says counts, and values are checked by their own sums, not by tags."""
    store = MistakenStore(DirectoryStore(tmp_path / "bucket"))
    backend = BucketBackend(
        store, directory=tmp_path / "home", limits=BucketLimits(lease_seconds=0.3)
    )
    for version in range(1, 6):
        kept = backend.write(record("k", version), frame(DATA))
        time.sleep(0.1)
    assert DATA == bytes(backend.read(kept))
    backend.close()


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_is_wrong_costs_nothing(tmp_path: Path, days: int) -> None:
    """Versions order what was written and the store's clock judges leases, so ours may be off."""
    store = WatchedStore(DirectoryStore(tmp_path / "bucket"))
    right = BucketBackend(store, directory=tmp_path / "home")
    right.write(record("k", 1), frame(b"old"))
    right.close()
    wrong = BucketBackend(
        store, directory=tmp_path / "other", wall=lambda: time.time() + days * 86400.0
    )
    wrong.write(record("k", 2), frame(b"new"))
    wrong.close()
    again = BucketBackend(store, directory=tmp_path / "third")
    again.reclaim()
    found = again.lookup("k")
    assert found is not None
    assert b"new" == bytes(again.read(found))
    again.close()
