"""From a URL and its options to a store: which one, with what, and what is refused."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.support.buckets.kit import WatchedStore
from tests.support.waiting import until

from memories import MemoryManager
from memories.backends.bucket import BucketBackend
from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.objectstore import Absent, Transient
from memories.backends.bucket.open_store import open_store
from memories.backends.bucket.options import client_options, split_options
from memories.backends.bucket.retry import RetryingStore, RetryPolicy
from memories.backends.bucket.throttle import ThrottledStore
from memories.errors import InvalidOptionError, UnavailableError

SECRET = "T0psecretT0psecret"


def test_names_of_fsspec_and_obstore_both_work() -> None:
    """A user of s3fs has a dict of options already."""
    options = {
        "key": "K",
        "secret": "S",
        "client_kwargs": {"endpoint_url": "http://host:1", "region_name": "r"},
        "timeout": "5s",
        "token": None,
    }
    config, client, provider = split_options("s3", options)
    assert {
        "access_key_id": "K",
        "secret_access_key": "S",
        "endpoint": "http://host:1",
        "region": "r",
    } == config
    assert {"timeout": "5s", "allow_http": True} == client
    assert provider is None
    assert "5s" == client_options(client)["connect_timeout"]


@pytest.mark.parametrize("url", ["ftp://host/x", "memory://x", "nonsense://"])
def test_an_unknown_scheme_is_refused_with_what_is_known(url: str) -> None:
    """A typo must not become a directory of that name."""
    with pytest.raises(InvalidOptionError, match="give a path, file://, s3://"):
        open_store(url)


@pytest.mark.parametrize(
    "url",
    [f"s3://key:{SECRET}@bucket/x", f"s3://bucket/x?secret={SECRET}", f"az://c/x?sig={SECRET}"],
)
def test_a_url_with_credentials_is_refused_without_repeating_them(url: str) -> None:
    """URLs are printed, logged and stored; credentials must not be in them."""
    pytest.importorskip("obstore")
    with pytest.raises(InvalidOptionError, match="by storage_options instead") as caught:
        open_store(url)
    assert SECRET not in str(caught.value)


def test_options_that_mean_nothing_are_named_but_not_their_values() -> None:
    """The typo is in the name; the value may be a secret."""
    pytest.importorskip("obstore")
    with pytest.raises(InvalidOptionError, match="acces_key") as caught:
        open_store("s3://bucket/x", {"acces_key": SECRET})
    assert SECRET not in str(caught.value) + str(caught.value.__cause__)
    with pytest.raises(InvalidOptionError, match="Account must be specified"):
        open_store("az://container/x")


def test_a_path_and_a_file_url_name_the_same_directory(tmp_path: Path) -> None:
    """Both are written in practice, with a space in them too."""
    place = tmp_path / "with space"
    open_store(place).put("objects/a", [b"x"])
    assert b"x" == open_store(f"file://{tmp_path}/with%20space").get("objects/a")[0]


def test_the_stand_in_needs_no_package(tmp_path: Path) -> None:
    """A user without a URL may not have installed obstore."""
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "from pathlib import Path\n"
        "from memories.backends.bucket import BucketBackend\n"
        f"BucketBackend({str(tmp_path)!r}).close()\n"
        "try: BucketBackend('s3://bucket/x')\n"
        "except ImportError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "run: pip install 'obstore" in run.stdout


def retrying(tmp_path: Path, policy: RetryPolicy) -> tuple[WatchedStore, RetryingStore]:
    watched = WatchedStore(DirectoryStore(tmp_path))
    return watched, RetryingStore(watched, policy)


def test_a_request_is_tried_so_often_and_no_more(tmp_path: Path) -> None:
    """Retries without end are an outage of one's own making."""
    watched, store = retrying(tmp_path, RetryPolicy(attempts=3, first_wait_seconds=0.001))
    tries = []

    def fail(action: str, name: str) -> None:
        tries.append(action)
        raise Transient("it answered HTTP 503")

    watched.fault = fail
    with pytest.raises(UnavailableError, match=r"did not write .* HTTP 503 \(3 attempts"):
        store.put("objects/a", [b"x"])
    assert 3 == len(tries)


def test_no_try_begins_after_the_total_time(tmp_path: Path) -> None:
    """Five tries of a minute each are five minutes."""
    watched, store = retrying(tmp_path, RetryPolicy(attempts=100, total_seconds=0.3))

    tries = []

    def fail(action: str, name: str) -> None:
        tries.append(action)
        time.sleep(0.1)
        raise Transient("it answered nothing")

    watched.fault = fail
    with pytest.raises(UnavailableError):
        store.get("objects/a")
    assert len(tries) <= 4


def test_an_answer_is_not_asked_for_again(tmp_path: Path) -> None:
    """Absent is absent."""
    watched, store = retrying(tmp_path, RetryPolicy())
    with pytest.raises(Absent):
        store.get("objects/a")
    assert 1 == watched.requests


def test_no_more_requests_at_once_than_allowed(tmp_path: Path) -> None:
    """A hundred threads must not open a hundred connections."""
    watched = WatchedStore(DirectoryStore(tmp_path))
    store = ThrottledStore(watched, requests=3)
    store.put("objects/a", [b"x"])
    at_work, most, lock = 0, 0, threading.Lock()

    def linger(action: str, name: str) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        until(lambda: most >= 3)
        time.sleep(0.01)  # For more of them to begin.
        with lock:
            at_work -= 1

    watched.fault = linger
    threads = [threading.Thread(target=store.get, args=("objects/a",)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 3 == most


def test_bandwidth_is_kept_over_time(tmp_path: Path) -> None:
    """An archive at night must leave some of the line to others."""
    store = ThrottledStore(DirectoryStore(tmp_path), 4, bytes_per_second=1_000_000)
    begun = time.monotonic()
    for n in range(4):
        store.put(f"objects/{n}", [bytes(100_000)])
    assert 0.3 <= time.monotonic() - begun < 30


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": True},
        {"concurrency": 10**6},
        {"bytes_per_second": 0},
        {"bytes_per_second": "fast"},
        {"progress": 7},
    ],
)
def test_our_own_options_are_checked(tmp_path: Path, options: dict[str, object]) -> None:
    """A typing mistake must not turn a bound off."""
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        BucketBackend(tmp_path / "bucket", storage_options=options)


def test_the_manager_hands_our_own_options_on(tmp_path: Path) -> None:
    """They stand among the others, so that there is one place for all of them."""
    reported: list[tuple[str, int, int]] = []
    options = {
        "concurrency": 4,
        "bytes_per_second": 30e6,
        "progress": lambda *one: reported.append(one),
    }
    begun = time.monotonic()
    with MemoryManager(
        1,
        1,
        1,
        True,
        storage_path=tmp_path / "s",
        storage_options=options,
        migration=False,
        prefetch="off",
    ) as manager:
        data = random.Random(0).randbytes(20_000_000)
        manager.store("k", data, "glacier")
        assert data == manager.retrieve("k")
    assert time.monotonic() - begun > 0.6
    assert {"k"} == {key for key, _, _ in reported}
