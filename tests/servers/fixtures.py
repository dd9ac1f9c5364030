"""Pytest fixtures for tests that need a real server; import them where they are used."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator

import pytest
from tests.servers import seaweed
from tests.servers.proxy import MisbehavingProxy, in_front_of


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
    """A proxy in front of it, well-behaved until told otherwise."""
    with in_front_of(s3.port) as proxy:
        yield proxy
