"""Pytest fixtures for tests that need a real server; import them where they are used."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.proxy import MisbehavingProxy, in_front_of

from memories import MemoryManager

Make = Callable[..., MemoryManager]


@pytest.fixture(scope="session")
def s3() -> seaweed.SeaweedServer:
    """A running S3 server, shared by the whole test run."""
    if reason := seaweed.missing():
        pytest.skip(reason)
    return seaweed.shared()


@pytest.fixture
def every_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> pytest.LogCaptureFixture:
    """All that is logged, however often it was logged by other tests of this minute."""
    monkeypatch.setattr(logging.getLogger("memories"), "filters", [])
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.fixture
def s3_url(s3: seaweed.SeaweedServer) -> str:
    """A prefix on it that no other test uses."""
    return f"s3://{seaweed.BUCKET}/{secrets.token_hex(8)}"


@pytest.fixture
def s3_proxy(s3: seaweed.SeaweedServer) -> Iterator[MisbehavingProxy]:
    """A proxy in front of it, well-behaved until a test sets a fault."""
    with in_front_of(s3.port) as proxy:
        yield proxy


@pytest.fixture
def make(
    s3: seaweed.SeaweedServer, s3_proxy: MisbehavingProxy, s3_url: str, tmp_path: Path
) -> Iterator[Make]:
    """Make a manager on a bucket behind the proxy; None is a reader that has the URL only."""
    made: list[MemoryManager] = []

    def make_(name: str | None, *, direct: bool = False, **options: object) -> MemoryManager:
        endpoint = None if direct else s3_proxy.endpoint
        made.append(
            MemoryManager(
                1,
                1,
                1,
                True,
                storage_path=None if name is None else tmp_path / name,
                glacier_url=s3_url,
                storage_options=s3.storage_options(endpoint),
                migration=False,
                prefetch="off",
                read_only=name is None,
                **options,  # type: ignore[arg-type]
            )
        )
        return made[-1]

    yield make_
    s3_proxy.fault = lambda request: None
    for manager in made:
        manager.cleanup()
