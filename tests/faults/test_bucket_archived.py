"""Objects that the provider has moved to an archive class.

The archive class is a double: no server that runs here has one. The proxy answers as the S3
documentation says that S3 does, and lets the real server answer once the restore is done.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import s3, s3_proxy, s3_url  # noqa: F401
from tests.support.buckets.kit import frame, record
from tests.support.buckets.proxy import Fault, MisbehavingProxy, Request

from memories.backends.bucket import BucketBackend, reader
from memories.errors import ArchivedError

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(importlib.util.find_spec("boto3") is None, reason="boto3 is not installed"),
]


class ArchiveClass:
    """What S3 says of an object in Glacier, before, during and after its restore."""

    def __init__(self, polls: int) -> None:
        self.polls = polls  # How many reads are refused after the restore was requested.
        self.requested = 0

    def __call__(self, request: Request) -> Fault | None:
        if request.method == "POST" and "restore" in request.path:
            self.requested += 1
            return Fault(status=202)
        if request.method == "GET" and "objects/" in request.path:
            if self.requested:
                self.polls -= 1
            if self.polls >= 0:
                return Fault(status=403, code="InvalidObjectState")
        return None


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")
@pytest.mark.parametrize(("polls", "timeout"), [(2, 60.0), (100, 0.2)])
def test_a_restore_is_requested_once_and_awaited(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    polls: int,
    timeout: float,
) -> None:
    """Asking twice is billed twice; waiting for ever is a hang."""
    monkeypatch.setattr(reader, "_FIRST_PAUSE_SECONDS", 0.05)
    options = s3.storage_options(s3_proxy.endpoint)
    backend = BucketBackend(s3_url, storage_options=options, directory=tmp_path / "home")
    kept = backend.write(record("k", 1), frame(b"x" * 300_000))
    archive = ArchiveClass(polls)
    s3_proxy.fault = archive
    with pytest.raises(ArchivedError, match="restored first: retrieve it with timeout="):
        backend.read(kept)
    if polls < 10:
        backend.restore([kept], timeout=timeout)
        assert b"x" * 300_000 == bytes(backend.read(kept))
    else:
        with pytest.raises(ArchivedError, match=r"'k' .* was not restored in time"):
            backend.restore([kept], timeout=timeout)
    assert 1 == archive.requested
    s3_proxy.fault = lambda request: None
    backend.close()
