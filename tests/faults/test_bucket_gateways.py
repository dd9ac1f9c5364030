"""Gateways, rights and regions that are not as they should be, in front of a real server.

What cannot work says so at the first use, by what one can do about it; what works in part says
which part does not.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import Make, every_warning, make, s3, s3_proxy, s3_url  # noqa: F401
from tests.support.buckets.proxy import Fault, MisbehavingProxy, Request

from memories import RefusedError, StoreLockedError
from memories.backends.bucket import BucketBackend
from memories.backends.bucket.url import parse_url

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("every_warning")]

LARGE = np.random.default_rng(1).random(60_000)


def conditional(status: int, code: str) -> Callable[[Request], Fault | None]:
    """A gateway that answers so to every conditional write."""
    return lambda request: Fault(status=status, code=code) if request.conditional else None


UNKNOWN = {
    "501": (501, "NotImplemented"),
    "400": (400, "InvalidArgument"),
    "405": (405, "MethodNotAllowed"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_gateway_without_conditional_writes_is_refused_by_that_word(
    make: Make,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    name: str,
) -> None:
    """ "HTTP 501, five tries" sent its readers to the network."""
    s3_proxy.fault = conditional(*UNKNOWN[name])
    with pytest.raises(RefusedError, match=rf"\({name} \w+\): it does not know conditional writes"):
        make("home")
    asked = [request for request in s3_proxy.requests if conditional(*UNKNOWN[name])(request)]
    assert len(asked) == 1, "an answer is not asked for again"


def test_a_gateway_that_ignores_conditions_is_found_out(
    make: Make,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    every_warning: pytest.LogCaptureFixture,  # noqa: F811
) -> None:
    """Each of two writers would believe that it is the only one."""
    s3_proxy.fault = lambda request: Fault(strip=b"if-")
    with make("home") as manager:
        assert "ignores If-None-Match" in every_warning.text
        manager.store("k", LARGE, "glacier")
        assert np.array_equal(LARGE, manager.retrieve("k"))
    every_warning.clear()
    with make("home"):
        assert "ignores If-None-Match" in every_warning.text, (
            "it is said whenever the store is opened"
        )


def test_a_writer_on_such_a_gateway_still_notices_another(
    make: Make,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """It looks before it writes, which leaves a gap of milliseconds and not of a session."""
    s3_proxy.fault = lambda request: Fault(strip=b"if-")
    first = make("first")
    with (
        make("second", takeover=True),
        pytest.raises(StoreLockedError, match="another store has become the writer"),
    ):
        first._services.backends[-1]._session.lease.renew()  # type: ignore[attr-defined]
    first._services.backends[-1]._session.lease._lost = False  # type: ignore[attr-defined]


def test_an_honest_gateway_is_asked_once(
    make: Make,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    every_warning: pytest.LogCaptureFixture,  # noqa: F811
) -> None:
    """Two requests for a store's life are cheap, at every opening they are not."""
    make("home").cleanup()
    assert any("lock/probe" in request.path for request in s3_proxy.requests)
    s3_proxy.requests.clear()
    make("home").cleanup()
    assert not any("lock/probe" in request.path for request in s3_proxy.requests)
    assert "" == every_warning.text


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=301, code="PermanentRedirect"),
        Fault(status=400, code="AuthorizationHeaderMalformed"),
        Fault(status=400, code="IllegalLocationConstraintException"),
    ],
)
def test_a_bucket_in_another_region_says_so(
    make: Make,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    fault: Fault,
) -> None:
    """The most common mistake with S3 of all."""
    s3_proxy.fault = lambda request: fault
    with pytest.raises(RefusedError, match=r"region.*set region in storage_options"):
        make("home")


def denied(fault: Fault) -> Callable[[Request], Fault | None]:
    """Rights to everything but to delete."""
    return lambda request: (
        fault if request.method == "DELETE" or request.path.endswith("?delete") else None
    )


DENIED = {
    "as a whole": Fault(status=403, code="AccessDenied"),
    "one by one": Fault(
        status=200,
        text="<?xml version='1.0'?><DeleteResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
        "<Error><Key>k</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        "</DeleteResult>",
    ),
}


@pytest.mark.parametrize("name", DENIED)
def test_a_writer_that_may_not_delete_opens_and_says_so(
    make: Make,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    every_warning: pytest.LogCaptureFixture,  # noqa: F811
    name: str,
) -> None:
    """A bucket that forbids deletes protects an archive against ransom."""
    s3_proxy.fault = denied(DENIED[name])
    manager = make("home")
    assert "may not be deleted from" in every_warning.text
    manager.store("k", LARGE, "glacier")
    manager.store("k", LARGE[::-1], "glacier")
    manager.delete("k")
    manager.store("k", LARGE, "glacier")
    manager._services.backends[-1].maintain()  # type: ignore[attr-defined]
    manager.cleanup()
    for n in range(3):
        with make("home") as again:
            again.store(f"k{n}", LARGE, "glacier")
    fresh = make("fresh")
    assert ["k", "k0", "k1", "k2"] == list(fresh)
    assert np.array_equal(LARGE, fresh.retrieve("k"))


def test_a_failed_upload_does_not_stop_a_writer_without_delete_rights(
    make: Make,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3: seaweed.SeaweedServer,  # noqa: F811
    every_warning: pytest.LogCaptureFixture,  # noqa: F811
) -> None:
    """The store was unusable from then on."""
    manager = make("home")
    s3_proxy.fault = lambda request: (
        Fault(status=400, code="EntityTooLarge") if "objects/" in request.path else None
    )
    with pytest.raises(RefusedError):
        manager.store("k", LARGE, "glacier")
    s3_proxy.fault = denied(DENIED["as a whole"])
    manager.cleanup()
    every_warning.clear()
    again = make("home")
    assert "may not be deleted from" in every_warning.text
    again.store("k", LARGE, "glacier")


def uploads(server: seaweed.SeaweedServer, prefix: str) -> int:
    """Return how many multipart uploads the server has under way below a prefix."""
    address = f"{server.endpoint}/{seaweed.BUCKET}?uploads&prefix={prefix}"
    with urllib.request.urlopen(address, timeout=60) as answer:
        root = ElementTree.fromstring(answer.read())
    return sum(1 for one in root.iter() if one.tag.endswith("}Upload") or one.tag == "Upload")


@pytest.mark.parametrize("heir", ["the same store", "a fresh machine"])
def test_what_a_killed_writer_was_uploading_is_aborted_at_the_next_opening(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
    tmp_path: Path,
    heir: str,
) -> None:
    """Its parts are billed for ever, in a listing that no user looks at."""
    s3_proxy.fault = lambda request: Fault(hang=True) if "partNumber=2" in request.path else None
    options = s3.storage_options(s3_proxy.endpoint)
    code = (
        "from memories.backends.bucket import BucketBackend\n"
        "from tests.support.buckets.kit import frame, record\n"
        f"backend = BucketBackend({s3_url!r}, storage_options={options!r}, "
        f"directory=__import__('pathlib').Path({str(tmp_path / 'home')!r}))\n"
        "backend.write(record('k', 1), frame(bytes(50_000_000)))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not any("partNumber=2" in request.path for request in s3_proxy.requests):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=60)
    s3_proxy.fault = lambda request: None
    prefix = s3_url.rpartition("/")[2]
    assert 1 == uploads(s3, prefix)
    same = heir == "the same store"
    backend = BucketBackend(
        s3_url, storage_options=options, directory=tmp_path / ("home" if same else "fresh")
    )
    assert 0 == uploads(s3, prefix)
    assert [] == backend.notes
    assert [] == backend.check()
    backend.close()


def test_uploads_are_aborted_where_requests_are_signed(
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """The two requests are signed here, for the library has no call for them."""
    from memories.backends.bucket.cloud import CloudStore

    server = seaweed.shared_with_keys()
    s3_proxy.port = server.port
    store = CloudStore(
        parse_url(f"s3://{seaweed.BUCKET}/a b#ü"), "memories-1",
        {
            "endpoint": s3_proxy.endpoint, "timeout": "30s",
            "access_key_id": seaweed.KEYS[0], "secret_access_key": seaweed.KEYS[1],
        },
    )  # fmt: skip
    assert [] == store.abandoned_uploads(None)
    s3_proxy.fault = lambda request: (
        Fault(reset=True) if "partNumber=2" in request.path or request.method == "DELETE" else None
    )
    with pytest.raises(Exception, match="the connection broke"):
        store.put("objects/a", [bytes(40_000_000)])
    s3_proxy.fault = lambda request: None
    assert [] == store.abandoned_uploads(["objects/b"])
    assert ["objects/a"] == store.abandoned_uploads(None)
    assert [] == store.abandoned_uploads(None)
