"""Blocks of files: few requests, hard sizes, and never a mixture of two versions of a file."""

from __future__ import annotations

import functools
import http.server
import itertools
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from fsspec.implementations.local import LocalFileSystem  # noqa: E402
from tests.support.forking import in_child  # noqa: E402

from memories import ConflictError, CorruptDataError, MemoryManager  # noqa: E402
from memories.fsspec import CachedFileSystem, MemoriesFileSystem  # noqa: E402
from memories.integrations.fsspec import blocks  # noqa: E402
from memories.testing.clock import ManualClock  # noqa: E402

SIZES = ("1 kB", "8 MB", "64 MB")
DATA = np.random.default_rng(1).bytes(100_000)


class CountingFileSystem(LocalFileSystem):
    """Files of the disk whose requests are counted, slowed down, or cut short on demand."""

    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[tuple[int, int]] = []
        self.looked = 0
        self.seconds = 0.0
        self.cut = 0
        self.failure: Exception | None = None

    def info(self, path: Any, **options: Any) -> Any:
        self.looked += 1
        if self.failure is not None:
            raise self.failure
        return super().info(path, **options)

    def cat_file(self, path: Any, start: Any = None, end: Any = None, **options: Any) -> bytes:
        self.asked.append((start, end))
        time.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        found: bytes = super().cat_file(path, start, end, **options)
        return found[: len(found) - self.cut]


@pytest.fixture(autouse=True)
def _trusted_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is so slow that it looks at a file again after a fetch."""
    monkeypatch.setattr(blocks, "TRUSTED_SECONDS", 3600.0)


def rewrite(path: str, content: bytes) -> None:
    """Write a file whose time differs, however soon that is after the last write."""
    before = Path(path).stat().st_mtime_ns
    Path(path).write_bytes(content)
    os.utime(path, ns=(before + 10**9, before + 10**9))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager(*SIZES, storage_path=tmp_path / "store") as one:
        yield one


@pytest.fixture
def behind() -> CountingFileSystem:
    return CountingFileSystem()


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "file").write_bytes(DATA)
    return str(tmp_path / "file")


def cached(behind: Any, manager: MemoryManager, **options: Any) -> Any:
    return MemoriesFileSystem(
        fs=behind, manager=manager, **{"block_size": 1000, "max_age": None, **options}
    )


def test_any_reads_give_the_bytes_of_the_file(
    manager: MemoryManager, behind: CountingFileSystem, path: str
) -> None:
    """Whatever a reader asks for, in whatever order, block borders do not show."""
    fs = cached(behind, manager)
    random = np.random.default_rng(2)
    with fs.open(path) as file:
        for _ in range(200):
            start = int(random.integers(0, 100_500))
            length = int(random.integers(0, 5000))
            file.seek(min(start, len(DATA)))
            assert DATA[start : start + length] == file.read(length)
    assert DATA == fs.cat_file(path)
    assert DATA[-10:] == fs.cat_file(path, -10)
    assert DATA[5:-5] == fs.cat_file(path, 5, -5)
    pieces = fs.cat_ranges([path] * 3, [0, 999, 99_990], [1, 1001, 200_000])
    assert [DATA[:1], DATA[999:1001], DATA[99_990:]] == pieces
    fetched = sorted(behind.asked)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(fetched))


def test_neighbouring_blocks_are_one_request_and_a_second_read_is_none(
    manager: MemoryManager, behind: CountingFileSystem, path: str
) -> None:
    """Each request costs the time to the server and back."""
    fs = cached(behind, manager)
    assert DATA[2500:7500] == fs.cat_file(path, 2500, 7500)
    assert [(2000, 8000)] == behind.asked
    assert DATA[500:9500] == fs.cat_file(path, 500, 9500)
    assert [(2000, 8000), (0, 2000), (8000, 10000)] == behind.asked
    assert DATA[500:9500] == fs.cat_file(path, 500, 9500)
    assert 3 == len(behind.asked)
    assert 1 == behind.looked


def test_a_sequential_reader_fetches_ahead(
    manager: MemoryManager, behind: CountingFileSystem, path: str
) -> None:
    """Lines of a file must not take a request for each block."""
    fs = cached(behind, manager)
    with fs.open(path) as file:
        read = b"".join(iter(lambda: file.read(700), b""))
    assert read == DATA
    assert len(behind.asked) < 20


def test_threads_share_requests(
    manager: MemoryManager, behind: CountingFileSystem, path: str
) -> None:
    """Eight threads that open the same file at once fetch each block once."""
    behind.seconds = 0.3
    fs = cached(behind, manager)
    found: list[bytes] = []
    read = functools.partial(fs.cat_file, path, 0, 3000)
    threads = [threading.Thread(target=lambda: found.append(read())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [DATA[:3000]] * 8 == found
    assert [(0, 3000)] == behind.asked


@pytest.mark.parametrize("max_age", [0.0, 30.0])
def test_a_changed_file_is_read_anew(
    manager: MemoryManager, behind: CountingFileSystem, path: str, max_age: float
) -> None:
    """By its time and size, when its age is over; what was kept of it before is dropped."""
    fs = cached(behind, manager, max_age=max_age)
    fs._kept._clock = clock = ManualClock()
    assert DATA == fs.cat_file(path)
    rewrite(path, DATA[::-1])
    if max_age:
        assert DATA == fs.cat_file(path)
    clock.advance(max_age)
    assert DATA[::-1] == fs.cat_file(path)
    assert 100 == sum(1 for _ in manager.scan("files/")) - 2  # And its version, and the source.


def test_an_open_file_that_changed_is_an_error_and_not_a_mixture(
    manager: MemoryManager,
    behind: CountingFileSystem,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The footer of one version and the columns of another would be garbage."""
    fs = cached(behind, manager)
    with fs.open(path) as file:
        assert DATA[:10] == file.read(10)
        monkeypatch.setattr(blocks, "TRUSTED_SECONDS", -1.0)  # It was looked at long ago.
        rewrite(path, DATA[::-1])
        file.seek(50_000)
        with pytest.raises(ConflictError, match="changed while it was read: open it again"):
            file.read(10)
    assert DATA[::-1] == fs.cat_file(path)


def test_a_short_body_is_an_error_and_is_not_kept(
    manager: MemoryManager, behind: CountingFileSystem, path: str
) -> None:
    """A connection that was cut must not become a short file."""
    fs = cached(behind, manager)
    behind.cut = 7
    with pytest.raises(CorruptDataError, match="993 bytes instead of 1000"):
        fs.cat_file(path, 0, 1000)
    behind.cut = 0
    assert DATA[:1000] == fs.cat_file(path, 0, 1000)


def test_a_source_that_is_away_is_an_error_and_what_is_kept_is_served(
    manager: MemoryManager, behind: CountingFileSystem, path: str
) -> None:
    """Within its age; "away" is never "absent"."""
    fs = cached(behind, manager)
    assert DATA[:1000] == fs.cat_file(path, 0, 1000)
    behind.failure = ConnectionError("away")
    assert DATA[:1000] == fs.cat_file(path, 0, 1000)
    with pytest.raises(ConnectionError, match="away"):
        fs.cat_file(path, 5000, 6000)
    with pytest.raises(ConnectionError, match="away"):
        cached(behind, manager, max_age=0).open(path)
    behind.failure = None
    assert DATA[5000:6000] == fs.cat_file(path, 5000, 6000)


def test_an_absent_file_is_remembered_for_a_bounded_time(
    manager: MemoryManager, behind: CountingFileSystem, path: str
) -> None:
    """And appears at once when it is written through this file system."""
    fs = cached(behind, manager, absent_seconds=30)
    fs._kept._clock = clock = ManualClock()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            fs.open(path + "2")
    assert 1 == behind.looked
    Path(path + "2").write_bytes(b"1")
    clock.advance(30)
    assert b"1" == fs.open(path + "2").read()
    with pytest.raises(FileNotFoundError):
        fs.open(path + "3")
    with fs.open(path + "3", "wb") as file:
        file.write(b"3")
    assert b"3" == fs.open(path + "3").read()


@pytest.mark.parametrize("change", ["pipe", "open", "rm", "cp", "put", "mv", "rm many"])
def test_a_change_through_the_file_system_is_seen_at_once(
    manager: MemoryManager, behind: CountingFileSystem, path: str, change: str, tmp_path: Path
) -> None:
    """Whatever changes a file drops what is kept of it."""
    fs = cached(behind, manager)
    other = str(tmp_path / "other")
    Path(other).write_bytes(b"other")
    assert DATA == fs.cat_file(path)
    if change == "pipe":
        fs.pipe(path, b"other")
    elif change == "open":
        with fs.open(path, "wb") as file:
            file.write(b"other")
    elif change == "cp":
        fs.cp(other, path)
    elif change == "put":
        fs.put(other, path)
    elif change == "mv":
        fs.mv(other, path)
    else:
        fs.rm(path if change == "rm" else [other, path])
        with pytest.raises(FileNotFoundError):
            fs.cat_file(path)
        return
    assert b"other" == fs.cat_file(path)


def test_a_file_of_a_transaction_is_seen_when_it_ends(
    manager: MemoryManager, behind: CountingFileSystem, path: str
) -> None:
    """What is read before is the old file; and a file that was never closed blocks nothing."""
    fs = cached(behind, manager)
    with fs.transaction:
        with fs.open(path, "wb") as file:
            file.write(b"other")
        assert DATA == fs.cat_file(path)
    assert b"other" == fs.cat_file(path)
    fs.open(path, "ab")  # Dropped at once.
    asked = len(behind.asked)
    for _ in range(2):
        assert b"other" == fs.cat_file(path)
    assert asked + 1 == len(behind.asked)


def test_sizes_are_hard(behind: CountingFileSystem, tmp_path: Path) -> None:
    """A file of ten times the cache is read through it twice, and neither RAM nor disk exceed."""
    data = np.random.default_rng(1).bytes(4_000_000)
    (tmp_path / "large").write_bytes(data)
    with MemoryManager("1 kB", "400 kB", "2 MB", storage_path=tmp_path / "store") as manager:
        fs = cached(behind, manager, block_size="100 kB")
        for _ in range(2):
            with fs.open(str(tmp_path / "large")) as file:
                assert data == file.read()
            for tier in manager.stats().tiers.values():
                assert tier.used_bytes <= tier.configured_bytes


def test_blocks_survive_the_process(behind: CountingFileSystem, tmp_path: Path, path: str) -> None:
    """Tomorrow the file is not fetched again."""
    for _ in range(2):
        with MemoryManager(*SIZES, storage_path=tmp_path / "store") as manager:
            assert DATA == cached(behind, manager).cat_file(path)
    assert [(0, 100_000)] == behind.asked
    assert 1 == behind.looked


def test_a_fork_reads_what_is_kept_and_fetches_the_rest(manager: MemoryManager, path: str) -> None:
    """Workers of a data loader are forks; the file system behind is made anew in them."""
    fs = cached(CountingFileSystem(), manager)
    assert DATA[:1000] == fs.cat_file(path, 0, 1000)

    def child() -> tuple[bool, list[tuple[int, int]]]:
        right = [fs.cat_file(path) == DATA for _ in range(2)]
        return all(right), fs.fs.asked

    assert "(True, [(1000, 100000)])" == in_child(child)


def read_in_a_process(pickled: bytes, path: str) -> tuple[bool, int]:
    fs = pickle.loads(pickled)
    return all(fs.cat_file(path) == DATA for _ in range(2)), len(fs.fs.asked)


@pytest.mark.parametrize("kept", [True, False])
def test_processes_read_what_is_kept(
    behind: CountingFileSystem, tmp_path: Path, path: str, kept: bool
) -> None:
    """A worker of dask reads the blocks on the disk, and fetches the rest once."""
    options: dict[str, Any] = {"storage_path": tmp_path / "store"} if kept else {}
    with MemoryManager(*SIZES, **options) as manager:
        fs = cached(behind, manager, tier="cold" if kept else "auto")
        assert DATA == fs.cat_file(path)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            right, asked = pool.apply(read_in_a_process, (pickle.dumps(fs), path))
    assert right
    assert asked == (0 if kept else 1)


def test_a_second_process_may_open_the_same_directory(tmp_path: Path, path: str) -> None:
    """It reads what the first one keeps, instead of failing."""
    url = f"memories::file://{path}"
    options = {"storage_path": str(tmp_path / "store"), "memory": "8 MB", "disk": "64 MB"}
    with fsspec.open(url, tier="cold", **options) as file:
        assert DATA == file.read()
    fs, _ = fsspec.url_to_fs(url, **options)
    program = (
        "import memories.fsspec, fsspec, sys\n"
        f"fs, path = fsspec.url_to_fs({url!r}, **{options!r})\n"
        f"print(len(fs.cat_file(path)), fs._manager._hierarchy.state.value)"
    )
    import subprocess
    import sys

    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "100000 read-only\n" == run.stdout, run.stderr
    fs._manager.cleanup()


class Tables:
    """A table of 100,000 rows as a file, and its columns."""

    def __init__(self, folder: Path) -> None:
        import pandas as pd

        random = np.random.default_rng(1)
        self.frame = pd.DataFrame({f"c{number}": random.random(20_000) for number in range(8)})
        self.frame.to_parquet(folder / "table.parquet")
        self.frame.to_csv(folder / "table.csv", index=False)


@pytest.fixture
def tables(tmp_path: Path) -> Any:
    pytest.importorskip("pyarrow")
    return Tables(tmp_path)


def test_pandas_reads_through_it(tables: Any, manager: MemoryManager, tmp_path: Path) -> None:
    """By a URL with options, a column of a parquet file and a whole CSV."""
    import pandas as pd

    if int(pd.__version__.partition(".")[0]) < 3:
        pytest.skip("pandas before version 3 takes no chained URL")

    for _ in range(2):
        found = pd.read_parquet(
            f"memories::file://{tmp_path}/table.parquet",
            columns=["c3"],
            storage_options={"memories": {"manager": manager}},
        )
        pd.testing.assert_frame_equal(tables.frame[["c3"]], found)
        text = pd.read_csv(
            f"memories::file://{tmp_path}/table.csv",
            storage_options={"memories": {"manager": manager}},
        )
        pd.testing.assert_frame_equal(tables.frame, text)


def test_pyarrow_and_polars_read_through_it(
    tables: Any, manager: MemoryManager, behind: CountingFileSystem, tmp_path: Path
) -> None:
    """By a file system of Arrow, and by an open file; a second time without a request."""
    import polars as pl
    import pyarrow.dataset as ds
    import pyarrow.fs as pafs

    fs = cached(behind, manager, block_size="64 kB")
    expected = tables.frame["c1"].to_numpy()
    for number in range(2):
        arrow = pafs.PyFileSystem(pafs.FSSpecHandler(fs))
        table = ds.dataset(str(tmp_path / "table.parquet"), filesystem=arrow, format="parquet")
        assert np.array_equal(expected, table.to_table(["c1"])["c1"].to_numpy())
        with fs.open(str(tmp_path / "table.parquet")) as file:
            assert np.array_equal(expected, pl.read_parquet(file)["c1"].to_numpy())
        if not number:
            asked = len(behind.asked)
    assert asked == len(behind.asked)


def test_h5netcdf_reads_through_it(
    manager: MemoryManager, behind: CountingFileSystem, tmp_path: Path
) -> None:
    """NetCDF on a server is many small reads."""
    xr = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    values = np.random.default_rng(1).random((20, 30))
    xr.Dataset({"a": (("y", "x"), values)}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    fs = cached(behind, manager)
    for _ in range(2):
        with fs.open(str(tmp_path / "a.nc")) as file, xr.open_dataset(file, engine="h5netcdf") as d:
            assert np.array_equal(values, d["a"].values)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files with ranges, as servers of files do, and counts the requests."""

    asked: list[str]

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        data = Path(self.directory, self.path.lstrip("/")).read_bytes()
        wanted = self.headers.get("Range")
        self.asked.append(f"{self.command} {wanted}")
        first, last = 0, len(data) - 1
        if wanted:
            start, _, stop = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(stop or last), last)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hash(data)}"')
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(data[first : last + 1])

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def test_files_of_a_web_server(manager: MemoryManager, tmp_path: Path, path: str) -> None:
    """`memories::http://`: a second read asks nothing, and a new ETag is a new file."""
    pytest.importorskip("aiohttp")
    asked: list[str] = []
    handler = functools.partial(type("H", (Handler,), {"asked": asked}), directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"memories::http://127.0.0.1:{server.server_port}/file"
        options = {"memories": {"manager": manager, "max_age": None, "block_size": 10_000}}
        for _ in range(2):
            with fsspec.open(url, **options) as file:
                assert DATA[:100] == file.read(100)
                file.seek(50_000)
                assert DATA[50_000:50_100] == file.read(100)
        assert 2 == sum(one.startswith("GET bytes") for one in asked), asked
        Path(path).write_bytes(DATA[::-1])
        options["memories"]["max_age"] = 0
        with fsspec.open(url, **options) as file:
            assert DATA[::-1][:100] == file.read(100)
    finally:
        server.shutdown()
        server.server_close()


def test_it_is_made_by_the_protocol(manager: MemoryManager) -> None:
    """`fsspec.filesystem("memories", ...)` is what libraries call."""
    fs = fsspec.filesystem("memories", target_protocol="file", manager=manager)
    assert isinstance(fs, CachedFileSystem)
    assert isinstance(fsspec.filesystem("memories", manager=manager), MemoriesFileSystem)
