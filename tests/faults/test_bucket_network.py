"""A line that fails in every way we know, between the archive and a real server.

Nothing acknowledged is lost, nothing wrong is returned, nothing waits for ever, and the message
names the key and the archive but no credential.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import s3, s3_proxy, s3_url  # noqa: F401
from tests.support.buckets.kit import frame, record
from tests.support.buckets.proxy import Fault, MisbehavingProxy, Request

from memories.backends.bucket import BucketBackend
from memories.backends.bucket.retry import RetryPolicy
from memories.errors import ArchivedError, CorruptDataError, UnavailableError

pytestmark = pytest.mark.server

QUICK = RetryPolicy(
    attempts=4, total_seconds=2.0, first_wait_seconds=0.01, longest_wait_seconds=0.1
)
PATIENT = QUICK._replace(total_seconds=100.0)  # Where only the fault may end a request.
SECRET = "T0psecretT0psecret"
DATA = os.urandom(9_000_000)

Open = Callable[..., BucketBackend]


@pytest.fixture
def opened(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
    tmp_path: Path,
) -> Iterator[Open]:
    """Open an archive whose requests go through the proxy."""
    backends: list[BucketBackend] = []

    def open_(home: str = "home", **options: object) -> BucketBackend:
        settings = s3.storage_options(s3_proxy.endpoint) | {"timeout": "20s"}
        backends.append(
            BucketBackend(
                s3_url,
                storage_options=settings | dict(options.pop("storage_options", {})),  # type: ignore[call-overload]
                directory=tmp_path / home,
                **{"retry": QUICK, **options},  # type: ignore[arg-type]
            )
        )
        return backends[-1]

    yield open_
    s3_proxy.fault = lambda request: None
    for backend in backends:
        backend.close()


def on(fault: Fault, *, method: str, times: int = 10**9, part: str = "objects/") -> Callable:  # type: ignore[type-arg]
    """Return a chooser for the first `times` requests of `method` on objects."""
    left = [times]

    def choose(request: Request) -> Fault | None:
        if request.method != method or part not in request.path or left[0] <= 0:
            return None
        left[0] -= 1
        return fault

    return choose


PASSING = {
    "slow": Fault(delay_seconds=0.2),
    "500": Fault(status=500),
    "503 SlowDown": Fault(status=503, code="SlowDown"),
    "429": Fault(status=429, code="TooManyRequests"),
    "reset": Fault(reset=True),
    "truncated head": Fault(truncate=20),
    "truncated body": Fault(truncate=2000),
    "lost answer": Fault(lose_answer=True),
    "hanging": Fault(hang=True),
}


def patiently(opened: Open, name: str) -> BucketBackend:
    """Open an archive that waits for a busy machine, and not for ever for a request that hangs."""
    timeout = "4s" if name == "hanging" else "60s"
    return opened(retry=PATIENT, storage_options={"timeout": timeout})


@pytest.mark.parametrize("name", PASSING)
def test_a_read_outlives_a_passing_fault(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
    name: str,
) -> None:
    """The line fails for a moment; no caller should notice."""
    backend = patiently(opened, name)
    kept = backend.write(record("k", 1), frame(DATA))
    s3_proxy.fault = on(PASSING[name], method="GET", times=2)
    assert DATA == bytes(backend.read(kept))


@pytest.mark.parametrize("name", [name for name in PASSING if name != "truncated body"])
def test_a_write_outlives_a_passing_fault(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
    name: str,
) -> None:
    """An upload whose answer was lost is sent again, and there is one copy."""
    backend = patiently(opened, name)
    s3_proxy.fault = on(PASSING[name], method="PUT", times=1)
    kept = backend.write(record("k", 1), frame(DATA))
    s3_proxy.fault = lambda request: None
    assert DATA == bytes(backend.read(kept))
    assert [] == backend.check()


LASTING = {
    "500": (Fault(status=500), "HTTP 500 InternalError"),
    "503": (Fault(status=503, code="SlowDown"), "HTTP 503 SlowDown"),
    "reset": (Fault(reset=True), "the connection broke"),
    "truncated": (Fault(truncate=2000), "the connection broke"),
    "hanging": (Fault(hang=True), "the request timed out"),
    "expired": (Fault(status=400, code="ExpiredToken"), "credentials have expired; renew them"),
    "skewed": (Fault(status=403, code="RequestTimeTooSkewed"), "clock is too far off; set it"),
    "denied": (Fault(status=403, code="AccessDenied"), "check the permissions"),
    "no bucket": (Fault(status=404, code="NoSuchBucket"), "the bucket does not exist"),
}


@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_fault_ends_in_one_clear_error_in_bounded_time(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
    name: str,
) -> None:
    """It names the key, the archive and the reason; the other copy stays where it is."""
    backend = opened(storage_options={"timeout": "4s" if name == "hanging" else "20s"})
    kept = backend.write(record("k", 1), frame(DATA[:1_000_000]))
    fault, reason = LASTING[name]
    s3_proxy.fault = on(fault, method="GET")
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match=r"key 'k' .* was not read back") as caught:
        backend.read(kept)
    assert time.monotonic() - begun < 30
    assert reason in str(caught.value)
    assert s3_url in str(caught.value)


def test_an_upload_that_never_succeeds_leaves_the_old_version_readable(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """The engine then keeps the copy it has; nothing was lost."""
    backend = opened()
    backend.write(record("k", 1), frame(DATA[:400_000]))
    s3_proxy.fault = on(Fault(lose_answer=True), method="PUT")
    with pytest.raises(UnavailableError, match=r"key 'k' \(1.0 MB\) was not archived"):
        backend.write(record("k", 2), frame(DATA[:1_000_000]))
    s3_proxy.fault = lambda request: None
    found = backend.lookup("k")
    assert found is not None
    assert DATA[:400_000] == bytes(backend.read(found))
    backend.maintain()
    assert [] == backend.check(), "what arrived without an answer was not deleted"


def test_a_failed_multipart_upload_is_aborted(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """Its parts would be billed for ever, in a listing that no user looks at."""
    backend = opened()
    s3_proxy.fault = on(Fault(status=500), method="PUT", part="partNumber=3")
    with pytest.raises(UnavailableError):
        backend.write(record("k", 1), frame(bytes(70_000_000)))
    begun = [one for one in s3_proxy.requests if one.method == "POST" and "uploads" in one.path]
    aborted = [
        one for one in s3_proxy.requests if one.method == "DELETE" and "uploadId" in one.path
    ]
    assert len(begun) == len(aborted) > 0


def test_an_object_in_an_archive_class_says_what_to_do(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """It is neither absent nor broken; it must be restored first."""
    backend = opened()
    kept = backend.write(record("k", 1), frame(DATA[:400_000]))
    s3_proxy.fault = on(Fault(status=403, code="InvalidObjectState"), method="GET")
    with pytest.raises(ArchivedError, match=r"key 'k' .* restored first"):
        backend.read(kept)


def test_a_missing_object_is_corrupt_data_at_once(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """An answer is not asked for again; only whether anything is there, or all of it is away."""
    backend = opened()
    kept = backend.write(record("k", 1), frame(DATA[:400_000]))
    before = len(s3_proxy.requests)
    s3_proxy.fault = on(Fault(status=404, code="NoSuchKey"), method="GET")
    with pytest.raises(CorruptDataError, match="the store says that there is none"):
        backend.read(kept)
    asked, looked = s3_proxy.requests[before:]
    assert "objects/" in asked.path
    assert looked.path.endswith("lock/writer")


def test_no_credential_is_in_any_message_or_traceback(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """Tracebacks end up in issue trackers."""
    secrets = {"skip_signature": None, "access_key_id": "AKIA0123456789ABCDEF"}
    secrets |= {"secret_access_key": SECRET, "session_token": SECRET + "token"}
    backend = opened(storage_options=secrets)
    kept = backend.write(record("k", 1), frame(DATA[:400_000]))
    for fault in (
        Fault(status=403, code=SECRET),
        Fault(status=500, code=SECRET),
        Fault(reset=True),
    ):
        s3_proxy.fault = on(fault, method="GET")
        with pytest.raises(UnavailableError) as caught:
            backend.read(kept)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
        assert SECRET not in shown
        assert "AKIA0123456789ABCDEF" not in shown
        assert SECRET not in repr(backend) + repr(vars(backend._bucket.store))


def test_opening_an_unreachable_archive_fails_in_bounded_time(tmp_path: Path) -> None:
    """A wrong endpoint is found out at once, not at the first store in the night."""
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="no connection could be made"):
        BucketBackend(
            "s3://nowhere/x",
            storage_options={"endpoint": "http://127.0.0.1:9", "region": "x", "anon": True},
            directory=tmp_path / "home",
            retry=QUICK,
        )
    assert time.monotonic() - begun < 30


def test_many_reads_over_a_slow_line_wait_together(
    opened: Open,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """64 values at a second of latency each are a few seconds, not a minute."""
    backend = opened()
    kept = [backend.write(record(f"k{n}", n + 1), frame(DATA[n : n + 300_000])) for n in range(64)]
    s3_proxy.fault = lambda request: Fault(delay_seconds=1.0)
    begun = time.monotonic()
    frames = backend.read_many(kept)
    assert time.monotonic() - begun < 30
    assert [DATA[n : n + 300_000] for n in range(64)] == [bytes(one) for one in frames]
