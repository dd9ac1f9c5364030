"""The bucket keeps the contract of every backend, in a directory and on a real S3 server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.buckets.fixtures import s3, s3_url  # noqa: F401

from memories.backends.base import Backend
from memories.backends.bucket import BucketBackend
from memories.testing.backends import BackendTests


class BucketTests(BackendTests):
    """Everything above the object store; a subclass says which store."""

    durable = True
    staged = True

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Backend]:
        def open_() -> Backend:
            return BucketBackend(
                tmp_path / "bucket", directory=tmp_path / "home" if self.staged else None
            )

        return open_

    @pytest.fixture
    def backend(self, opened: Callable[[], Backend]) -> Iterator[Backend]:
        backend = opened()
        yield backend
        backend.close()

    @pytest.fixture
    def reopen(self, opened: Callable[[], Backend]) -> Callable[[Backend], Backend]:
        def again(backend: Backend) -> Backend:
            backend.close()
            return opened()

        return again


class TestDirectory(BucketTests):
    pass


class TestDirectoryAlone(BucketTests):
    """Nothing on this machine: all that is known is in the bucket."""

    staged = False
    # A thousand uploads, each synced, take long and show no more than the ones above.
    test_it_behaves_as_the_oracle = None  # type: ignore[assignment]


@pytest.mark.server
class TestS3(BucketTests):
    @pytest.fixture
    def opened(self, s3_url: str, s3, tmp_path: Path) -> Callable[[], Backend]:  # noqa: F811
        def open_() -> Backend:
            options = s3.storage_options()
            return BucketBackend(s3_url, storage_options=options, directory=tmp_path / "home")

        return open_
