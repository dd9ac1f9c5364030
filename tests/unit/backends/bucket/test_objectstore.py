"""What the code above an object store relies on, for the directory and for a real S3 server."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import s3, s3_proxy, s3_url  # noqa: F401
from tests.support.buckets.proxy import Fault, MisbehavingProxy, Request

from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.objectstore import Absent, Conflict, ObjectStore
from memories.backends.bucket.url import parse_url
from memories.errors import StorageError
from memories.foundation.worker_pool import is_abandoned


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.server)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    if request.param == "directory":
        yield DirectoryStore(tmp_path / "store")
        return
    from memories.backends.bucket.cloud import CloudStore

    server = request.getfixturevalue("s3")
    yield CloudStore(
        parse_url(f"s3://test-bucket/{tmp_path.name}"), "fixed", server.storage_options()
    )


def test_what_was_put_is_what_one_gets_whole_and_in_ranges(store: ObjectStore) -> None:
    """Everything is built of this."""
    store.put("objects/a", [b"hello ", b"", memoryview(b"world")])
    assert b"hello world" == store.get("objects/a")[0]
    assert b"world" == bytes(store.get_range("objects/a", 6, 5))


def test_a_range_ends_where_the_object_ends(store: ObjectStore) -> None:
    """A truncated object must be seen as such, not as an error of the network."""
    store.put("objects/a", [b"hello"])
    assert b"lo" == bytes(store.get_range("objects/a", 3, 100))
    assert b"" == bytes(store.get_range("objects/a", 50, 100))


def test_an_object_of_many_parts_arrives_whole(store: ObjectStore) -> None:
    """Gather lists longer than one system call takes, and larger than one request takes."""
    parts = [bytes([n % 251]) * 40_000 for n in range(1500)]
    store.put("objects/large", parts)
    assert b"".join(parts) == bytes(store.get_range("objects/large", 0, 60_000_000))


def test_absent_is_an_answer_of_its_own(store: ObjectStore) -> None:
    """It must never be mistaken for a failure, nor a failure for it."""
    for ask in (
        lambda: store.get("objects/none"),
        lambda: store.get_range("objects/none", 0, 1),
    ):
        with pytest.raises(Absent):
            ask()
    store.delete("objects/none")


def test_listing_gives_names_and_sizes_under_a_prefix_only(store: ObjectStore) -> None:
    """A fresh machine finds its objects by it."""
    for name in ("objects/a", "objects/b", "manifests/c"):
        store.put(name, [b"12345"])
    listed = {stat.name: stat.size for stat in store.list("objects/")}
    assert {"objects/a": 5, "objects/b": 5} == listed
    assert [] == list(store.list("nothing/"))


def test_a_conditional_write_succeeds_only_against_the_state_it_was_made_for(
    store: ObjectStore,
) -> None:
    """The writer's lock rests on it."""
    first = store.put_if("lock/writer", b"one", None)
    with pytest.raises(Conflict):
        store.put_if("lock/writer", b"two", None)
    second = store.put_if("lock/writer", b"two", first)
    with pytest.raises(Conflict):
        store.put_if("lock/writer", b"three", first)
    assert (b"two", second) == store.get("lock/writer")


def test_of_many_conditional_writes_one_wins(store: ObjectStore) -> None:
    """Two machines that start at the same moment must not both become the writer."""
    winners = []

    def race(number: int) -> None:
        try:
            store.put_if("lock/race", str(number).encode(), None)
        except Conflict:
            return
        winners.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len(winners)
    assert str(winners[0]).encode() == store.get("lock/race")[0]


def test_a_directory_store_is_private_and_shows_no_partial_objects(tmp_path: Path) -> None:
    """An archive holds what its owner holds; no other user of the machine may read it."""
    root = tmp_path / "store"
    store = DirectoryStore(root)
    store.put("objects/a", [b"x"])
    (root / "objects" / ".part-deadbeef").write_bytes(b"half")
    assert 0o700 == root.stat().st_mode & 0o777
    assert 0o600 == (root / "objects" / "a").stat().st_mode & 0o777
    assert ["objects/a"] == [stat.name for stat in store.list("objects/")]


def test_a_directory_that_refuses_says_which_and_why(tmp_path: Path) -> None:
    """A full disk is no broken program."""
    store = DirectoryStore(tmp_path / "store")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "objects").write_bytes(b"a file where a directory should be")
    with pytest.raises(StorageError, match=r"archive directory .*store refused to write"):
        store.put("objects/a", [b"x"])


def test_a_failed_write_leaves_no_file_behind(tmp_path: Path) -> None:
    """What failed a thousand times must not fill the disk."""
    store = DirectoryStore(tmp_path / "store")
    store.put("objects/a", [b"x"])
    with pytest.raises(TypeError):
        store.put("objects/b", [b"y", object()])  # type: ignore[list-item]
    assert ["a"] == [path.name for path in (tmp_path / "store" / "objects").iterdir()]


@pytest.mark.server
@pytest.mark.parametrize("then", ["put", "delete"])
def test_a_write_that_was_interrupted_does_not_overtake_a_later_one(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
    then: str,
) -> None:
    """It may still arrive: the old pack in the place of the new one, or what was deleted."""
    from memories.backends.bucket.cloud import CloudStore

    interrupted = threading.Event()

    def late(request: Request) -> Fault | None:
        if request.method != "PUT":
            return None
        s3_proxy.fault = lambda request: None
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.wait(60)
        return Fault(delay_seconds=1.0)

    store = CloudStore(parse_url(s3_url), "fixed", s3.storage_options(s3_proxy.endpoint))
    s3_proxy.fault = late
    with pytest.raises(KeyboardInterrupt):
        store.put("objects/a", [b"old"])
    interrupted.set()
    if then == "put":
        store.put("objects/a", [b"new"])
    else:
        store.delete("objects/a")
    time.sleep(1.5)  # What was overtaken would arrive by then.
    if then == "put":
        assert b"new" == store.get("objects/a")[0]
    else:
        with pytest.raises(Absent):
            store.get("objects/a")
    assert not store._left
    store.close()


@pytest.mark.server
def test_an_interrupted_upload_in_parts_sends_no_more_of_them(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
) -> None:
    """The caller may write into the memory again, without a change to any object."""
    from memories.backends.bucket.cloud import CloudStore

    sent: list[int] = []

    def sending(count: int) -> None:
        sent.append(count)
        if len(sent) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            give_up = time.monotonic() + 60
            while not is_abandoned() and time.monotonic() < give_up:
                time.sleep(0.01)

    store = CloudStore(parse_url(s3_url), "fixed", s3.storage_options(s3_proxy.endpoint))
    with pytest.raises(KeyboardInterrupt):
        store.put("objects/a", [bytes(16 << 20)] * 20, sending)
    store.delete("objects/a")  # Which comes after its end.
    assert 2 == len(sent)
    with pytest.raises(Absent):
        store.get("objects/a")
    store.close()
