"""The answers of object stores become errors of ours, without the secrets in them."""

from __future__ import annotations

import pytest

from memories import ArchivedError, RefusedError
from memories.backends.bucket.objectstore import Absent, Conflict, Transient
from memories.backends.bucket.provider_errors import ProviderErrors

URL = "s3://bucket/prefix"
SECRET = "correct-horse-battery"


def meaning(text: str, *, conditional: bool = False, kind: type[Exception] = OSError) -> Exception:
    """Return the error for an answer of this text."""
    return ProviderErrors(URL, [SECRET]).translate(kind(text), conditional=conditional)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("status code: 404", Absent),
        ("status code: 412", Conflict),
        ("status code: 503", Transient),
        ("status code: 400 <Code>RequestTimeout</Code>", Transient),
        ("kind: Connect, no route to host", Transient),
        ("status code: 403", RefusedError),
        ("status code: 404 <Code>NoSuchBucket</Code>", RefusedError),
        ("status code: 403 <Code>InvalidObjectState</Code>", ArchivedError),
    ],
)
def test_each_answer_has_one_meaning(text: str, kind: type[Exception]) -> None:
    """A refusal that is tried again wastes a minute, and an outage that is not loses a request."""
    assert kind is type(meaning(text))


@pytest.mark.parametrize("status", [400, 405, 501])
def test_a_refused_condition_names_the_missing_feature(status: int) -> None:
    """Two writers can destroy an archive on a gateway without conditional writes."""
    failure = meaning(f"status code: {status}", conditional=True)
    assert isinstance(failure, RefusedError) and "conditional writes" in str(failure)


def test_no_message_and_no_cause_contains_a_secret() -> None:
    """Errors are logged, and logs are read by many."""
    failure = meaning(f"status code: 403 {SECRET} AKIA1234567890ABCDEF ?X-Amz-Signature=abc")
    texts = f"{failure} {failure.__cause__!r}"
    assert SECRET not in texts and "AKIA1234" not in texts and "Signature=abc" not in texts
