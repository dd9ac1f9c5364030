"""Fork, spawn and forkserver: an error at once in the first, a working archive in the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from pathlib import Path

import pytest
from tests.support.buckets.fixtures import s3, s3_url  # noqa: F401
from tests.support.buckets.kit import frame, record

from memories.backends.bucket import BucketBackend
from memories.errors import ForkedError


def in_a_fork(action) -> str:  # type: ignore[no-untyped-def]
    """Return the name of what `action` raised in a forked child, or "hung"."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Other threads: that is the point.
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            action()
            word = "nothing"
        except BaseException as error:
            word = type(error).__name__
        os.write(writing, word.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        word = stream.read() or "hung"
    os.waitpid(child, 0)
    return word


@pytest.mark.server
def test_every_use_in_a_forked_child_is_refused_at_once(s3_url: str, s3, tmp_path: Path) -> None:  # noqa: F811
    """The client of the store hangs for ever in a child whose parent has used it."""
    backend = BucketBackend(
        s3_url, storage_options=s3.storage_options(), directory=tmp_path / "home"
    )
    kept = backend.write(record("k", 1), frame(bytes(300_000)))
    for action in (
        lambda: backend.read(kept),
        lambda: backend.write(record("k", 2), frame(b"x")),
        lambda: backend.lookup("k"),
        lambda: backend.remove("k", 3),
        backend.sync,
        backend.usage,
        lambda: list(backend.records()),
    ):
        assert ForkedError.__name__ == in_a_fork(action)
    assert "nothing" == in_a_fork(backend.close)
    assert 300_000 == len(backend.read(kept))
    backend.write(record("k", 4), frame(b"the parent goes on"))
    backend.close()


def test_a_fork_that_outlives_its_parent_holds_no_lock(tmp_path: Path) -> None:
    """A child inherits descriptors; a lock in one of them would outlive the store."""
    backend = BucketBackend(tmp_path / "bucket", directory=tmp_path / "home")
    reading, writing = os.pipe()
    started, starting = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(writing)
        os.write(starting, b"!")
        os.read(reading, 1)  # Lives until the parent is done.
        os._exit(0)
    os.read(started, 1)  # Until then the child may not have released what it inherited.
    backend.close()
    BucketBackend(tmp_path / "bucket", directory=tmp_path / "home").close()
    os.close(writing)
    os.waitpid(child, 0)
    for descriptor in (reading, started, starting):
        os.close(descriptor)


def use(url: str, options: dict[str, object], home: str) -> bytes:
    backend = BucketBackend(url, storage_options=options, directory=Path(home))
    data = bytes(backend.read(backend.write(record("k", 1), frame(b"x" * 300_000))))
    backend.close()
    return data


@pytest.mark.server
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_started_processes_open_archives_of_their_own(
    s3_url: str,  # noqa: F811
    s3,  # noqa: F811
    tmp_path: Path,
    method: str,
) -> None:
    """The manual advises users of multiprocessing to do this."""
    use(s3_url + "/parent", s3.storage_options(), str(tmp_path / "parent"))
    with multiprocessing.get_context(method).Pool(1) as pool:
        arguments = (s3_url + "/child", s3.storage_options(), str(tmp_path / "child"))
        assert b"x" * 300_000 == pool.apply_async(use, arguments).get(timeout=240)
