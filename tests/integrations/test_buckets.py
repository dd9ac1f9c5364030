"""Caches over a real S3 server: ETags, short bodies, and a server that goes away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")
pytest.importorskip("xarray", reason="xarray is not installed")
fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from tests.support.buckets.fixtures import s3, s3_proxy, s3_url  # noqa: E402, F401
from tests.support.buckets.proxy import Fault, MisbehavingProxy  # noqa: E402
from tests.support.buckets.seaweed import SeaweedServer  # noqa: E402
from zarr.storage import FsspecStore  # noqa: E402

from memories import MemoryManager  # noqa: E402
from memories.fsspec import MemoriesFileSystem  # noqa: E402
from memories.xarray import store_of  # noqa: E402
from memories.zarr import CachedStore  # noqa: E402

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager("1 MB", "16 MB", "64 MB", storage_path=tmp_path / "store") as one:
        yield one


class Bucket:
    """A bucket with a cube, as two libraries open it through a proxy."""

    def __init__(self, server: SeaweedServer, proxy: MisbehavingProxy, url: str) -> None:
        self.url, self.proxy = url, proxy
        self.values = np.arange(48 * 48, dtype="int32").reshape(48, 48) + 1
        # An error of the server must not be repeated for minutes.
        self.options = server.storage_options(proxy.endpoint)
        self.writer = store_of(url, server.storage_options()).with_read_only(False)
        self.array = zarr.create_array(
            self.writer, name="cube", data=self.values, chunks=(16, 16), compressors=None
        )

    def store(self, library: str) -> Any:
        if library == "obstore":
            return store_of(self.url, self.options)
        pytest.importorskip("s3fs", minversion="2025.1")
        options = {"anon": True, "client_kwargs": {"endpoint_url": self.proxy.endpoint}}
        return FsspecStore.from_url(self.url, storage_options=options, read_only=True)

    def asked(self, method: str) -> int:
        return sum(one.method == method and "/cube/c/" in one.path for one in self.proxy.requests)


@pytest.fixture
def bucket(
    s3: SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
) -> Bucket:
    return Bucket(s3, s3_proxy, s3_url)


@pytest.mark.parametrize("library", ["obstore", "fsspec"])
def test_an_etag_says_whether_a_chunk_has_changed(
    bucket: Bucket, manager: MemoryManager, library: str
) -> None:
    """An unchanged chunk is not sent again, and a changed one is seen."""
    options: dict[str, Any] = {"max_age": 0, "prefetch": False}
    store = CachedStore(bucket.store(library), manager, **options)
    array = zarr.open_array(store, path="cube", mode="r", zarr_format=3)
    for _ in range(2):  # fsspec gives no ETag with a whole value: the second read learns it.
        assert np.array_equal(bucket.values, array[:])
    sent, looked = bucket.asked("GET"), bucket.asked("HEAD")
    assert np.array_equal(bucket.values, array[:])
    if library == "obstore":
        assert (9, 9) == (sent, looked)
        assert (9, 18) == (bucket.asked("GET"), bucket.asked("HEAD"))
    bucket.array[:16, :16] = -1
    assert (array[:16, :16] == -1).all()
    assert np.array_equal(bucket.values[16:], array[16:])


def test_a_short_body_is_an_error_and_nothing_of_it_is_kept(
    bucket: Bucket, manager: MemoryManager
) -> None:
    """A connection that ends early must not become a chunk of other numbers."""
    store = CachedStore(bucket.store("obstore"), manager, prefetch=False)
    array = zarr.open_array(store, path="cube", mode="r", zarr_format=3)
    bucket.proxy.fault = lambda request: Fault(truncate=700) if "/c/" in request.path else None
    try:
        found = array[:16, :16]
    except Exception as error:
        assert "absent" not in str(error)
    else:  # obstore asks for the rest, until it has all.
        assert np.array_equal(bucket.values[:16, :16], found)
    bucket.proxy.fault = lambda request: None
    assert np.array_equal(bucket.values, array[:])


@pytest.mark.parametrize("library", ["obstore", "fsspec"])
def test_a_server_that_refuses_is_an_error_and_not_absent(
    bucket: Bucket, manager: MemoryManager, library: str
) -> None:
    """Zarr takes an absent chunk for fill values."""
    store = CachedStore(bucket.store(library), manager, prefetch=False, max_age=None)
    array = zarr.open_array(store, path="cube", mode="r", zarr_format=3)
    assert np.array_equal(bucket.values[:16], array[:16])
    bucket.proxy.fault = lambda request: Fault(status=403, code="AccessDenied")
    assert np.array_equal(bucket.values[:16], array[:16])
    with pytest.raises(Exception, match=r"(?i)denied|403|forbidden|permission"):
        array[16:]
    bucket.proxy.fault = lambda request: None
    assert np.array_equal(bucket.values, array[:])


def test_files_of_a_bucket_have_etags(bucket: Bucket, manager: MemoryManager) -> None:
    """`memories::s3://`: a second read asks nothing, and a new object is seen."""
    pytest.importorskip("s3fs", minversion="2025.1")
    target = {"anon": True, "client_kwargs": {"endpoint_url": bucket.proxy.endpoint}}
    data = np.random.default_rng(1).bytes(300_000)
    fs = MemoriesFileSystem(
        target_protocol="s3", target_options=target, manager=manager, block_size=100_000
    )
    path = f"{bucket.url}/file"
    fs.pipe_file(path, data)
    for _ in range(2):
        with fs.open(path) as file:
            file.seek(150_000)
            assert data[150_000:150_100] == file.read(100)
    gets = [one for one in bucket.proxy.requests if one.method == "GET" and "/file" in one.path]
    assert 1 == len(gets)
    assert b"bytes=100000-" in gets[0].head
    again = MemoriesFileSystem(
        target_protocol="s3", target_options=target, manager=manager, block_size=100_000, max_age=0
    )
    assert data == again.cat_file(path)
    fs.fs.pipe_file(path, data[::-1])
    assert data[::-1] == again.cat_file(path)
    bucket.proxy.fault = lambda request: Fault(truncate=20_000) if "/file" in request.path else None
    fs.fs.pipe_file(path, data)
    try:
        assert data[:100_000] == again.cat_file(path, 0, 100_000)
    except Exception as error:  # Of aiohttp, through s3fs.
        assert not isinstance(error, FileNotFoundError)
    bucket.proxy.fault = lambda request: None
    assert data == again.cat_file(path)
