"""Translates the errors of an object store into ours, without its secrets.

A message contains the status and the provider's code at most. One table maps the answers of the
providers to what a user can do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from memories.backends.bucket.objectstore import Absent, Conflict, Transient
from memories.backends.bucket.restore_request import HOW
from memories.errors import ArchivedError, InvalidOptionError, RefusedError

T = TypeVar("T")

_STATUS = re.compile(r"status code: (\d{3})")
# In an answer, or, for one of many objects to delete, in the library's words.
_CODE = re.compile(r"(?:<Code>|\(code: )([A-Za-z]{1,60})(?:</Code>|\))")
_QUERY = re.compile(r"\?[^\s,\"'>)]+")
_KEYS = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b|(?i:authorization|signature|sig)=[^\s&,\"]+")
_SECRET_NAMES = re.compile(r"(?i)secret|token|password|account_key|access_key|sas|credential")
_SECRET_LEAST = 4  # Shorter option values are not secret; hiding them would hide half of a message.

_REFUSALS = {
    "NoSuchBucket": "the bucket does not exist; create it or correct the URL",
    "ExpiredToken": "the credentials have expired; renew them",
    "ExpiredTokenException": "the credentials have expired; renew them",
    "TokenRefreshRequired": "the credentials have expired; renew them",
    "InvalidAccessKeyId": "the access key is unknown there; check the credentials",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check the credentials",
    "RequestTimeTooSkewed": "this machine's clock is too far off; set it",
    "AccessDenied": "the credentials do not allow it; check the permissions",
    "PermanentRedirect": "the bucket lies in another region; set region in storage_options",
    "IllegalLocationConstraintException": "the bucket lies in another region; set region in "
    "storage_options",
    "AuthorizationHeaderMalformed": "the region is wrong; set region in storage_options",
}
_BY_STATUS = {
    401: "the credentials were not accepted; check them",
    403: "the credentials do not allow it; check the permissions",
}
_ELSEWHERE = "the bucket lies in another region; set region in storage_options (or AWS_REGION)"
_UNCONDITIONAL = (
    "it does not know conditional writes (If-None-Match, If-Match), which keep two writers apart; "
    "update it, or take a store that knows them: S3, GCS, Azure, MinIO, SeaweedFS, Ceph"
)
_NO_CREDENTIALS = (
    "no credentials were found, neither in the environment nor in ~/.aws nor from this machine's "
    "role; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or say "
    "skip_signature=True in storage_options for a public bucket"
)
_NO_CREDENTIALS_ELSEWHERE = (
    "no credentials were found, neither in the environment nor from this machine's role; "
    "see docs/howto/glacier-credentials.md"
)
_ROLES = (
    "169.254.169.254",
    "169.254.170.2",
    "metadata.google.internal",
)  # They serve keys.
_RETRIED = {408, 409, 425, 429}
_RETRIED_CODES = {"SlowDown", "RequestTimeout", "InternalError", "IncompleteBody", "BadDigest"}
_ARCHIVED = {"InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"}


class _BeyondEnd(Exception):
    """A range was asked for that starts after the end of the object."""


class ProviderErrors:
    """Translates the errors of one store."""

    BeyondEnd = _BeyondEnd

    def __init__(self, url: str, options: Iterable[Any]) -> None:
        self._url = url
        self.reached = False  # Whether a request has succeeded, so that there are credentials.
        environment = [value for name, value in os.environ.items() if _SECRET_NAMES.search(name)]
        texts = {value for value in [*options, *environment] if isinstance(value, str)}
        self._secrets = sorted((t for t in texts if len(t) >= _SECRET_LEAST), key=len, reverse=True)

    def translate(self, error: BaseException, *, conditional: bool = False) -> Exception:
        """Return what to raise for `error`, its cause set to a copy without secrets.

        `conditional` says that it is the answer to a conditional write.
        """
        text = str(error)
        status = int(found[1]) if (found := _STATUS.search(text)) else None
        code = found[1] if (found := _CODE.search(text)) else ""
        kind = type(error).__name__
        if is_panic(error):
            failure: Exception = self._refused(
                None, "", f"the client failed on it ({self._scrub(text)}); check URL and endpoint"
            )
        elif conditional and _is_unconditional(status, code):
            failure = self._refused(status, code, _UNCONDITIONAL)
        else:
            failure = self._classify(kind, status, code, text)
        failure.__cause__ = self._clean(error, text)
        return failure

    def open_client(self, make: Callable[[], T]) -> T:
        """Return a new client, or raise what is wrong with its options."""
        try:
            return make()
        except BaseException as error:
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            line = self._scrub(str(error))
            cause = self._clean(error, str(error))
        failure = InvalidOptionError(
            f"the archive {self._url} cannot be opened: {line}: see storage_options"
        )
        failure.__cause__ = cause
        raise failure

    def _classify(self, kind: str, status: int | None, code: str, text: str) -> Exception:
        if kind in ("AlreadyExistsError", "PreconditionError") or status == 412:
            return Conflict(f"HTTP {status} {code}".strip())
        if code in _ARCHIVED:
            return ArchivedError(
                f"the object is in an archive class of {self._url} and must be restored first: "
                f"{HOW}"
            )
        if code in _REFUSALS:
            return self._refused(status, code, _REFUSALS[code])
        if kind in ("FileNotFoundError", "NotFoundError") or status == 404:
            return Absent(f"HTTP 404 {code}".strip())
        if status == 416:
            return _BeyondEnd()
        if "redirect without LOCATION" in text or status == 301:
            return self._refused(301, code, _ELSEWHERE)
        if not self.reached and any(role in text for role in _ROLES):
            aws = self._url.startswith("s3")
            return self._refused(None, "", _NO_CREDENTIALS if aws else _NO_CREDENTIALS_ELSEWHERE)
        if "source: BadScheme" in text:
            return self._refused(None, "", "plain http:// is not allowed; set allow_http=True")
        if "kind: Builder," in text:
            return self._refused(None, "", "the client cannot make a request; see the cause")
        if status is None or status >= 500 or status in _RETRIED or code in _RETRIED_CODES:
            return Transient(_transient(status, code, text))
        return self._refused(status, code, _BY_STATUS.get(status, "see the cause"))

    def _refused(self, status: int | None, code: str, advice: str) -> RefusedError:
        answer = " ".join(part for part in (str(status or ""), code) if part)
        return RefusedError(f"the archive {self._url} refused the request ({answer}): {advice}")

    def _clean(self, error: BaseException, text: str) -> BaseException:
        line = self._scrub(text)
        if is_panic(error):
            return RuntimeError(line)
        try:
            return type(error)(line)
        except TypeError:
            return RuntimeError(f"{type(error).__name__}: {line}")

    def _scrub(self, text: str) -> str:
        line = text.split("\n", 1)[0]
        for secret in self._secrets:
            if secret not in self._url:
                line = line.replace(secret, "***")
        return _KEYS.sub("***", _QUERY.sub("?***", line))


def is_panic(error: BaseException) -> bool:
    """Return whether `error` is a panic of a library in Rust: a BaseException of no package."""
    return type(error).__name__ == "PanicException"


def _is_unconditional(status: int | None, code: str) -> bool:
    """Return whether this is how a gateway refuses a condition that it does not know."""
    known = code in _REFUSALS or code in _RETRIED_CODES
    return status in (405, 501) or (status == 400 and not known)


def _transient(status: int | None, code: str, text: str) -> str:
    if status is not None:
        return f"it answered HTTP {status} {code}".strip()
    if "TimedOut" in text or "timed out" in text:
        return "the request timed out"
    if "kind: Connect," in text:  # Not ConnectionReset, which comes later.
        return "no connection could be made"
    return "the connection broke"
