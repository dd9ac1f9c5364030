"""What an object store's errors mean, and how to say it without its secrets.

Not a log of them: a message here is ours, with the status and the provider's code at most.
One table from what providers answer to what a user can do about it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from memories.backends.bucket.objectstore import Absent, Conflict, Transient
from memories.backends.bucket.restore import HOW
from memories.errors import ArchivedError, InvalidOptionError, RefusedError

T = TypeVar("T")

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_QUERY = re.compile(r"\?[^\s,\"'>)]+")
_KEYS = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b|(?i:authorization|signature|sig)=[^\s&,\"]+")
_SECRET_NAMES = re.compile(r"(?i)secret|token|password|account_key|access_key|sas|credential")
_SECRET_LEAST = 4  # Shorter option values are no secrets, and would hide half of a message.

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
    "AuthorizationHeaderMalformed": "the region is wrong; set region in storage_options",
}
_BY_STATUS = {
    401: "the credentials were not accepted; check them",
    403: "the credentials do not allow it; check the permissions",
}
_RETRIED = {408, 409, 425, 429}
_RETRIED_CODES = {"SlowDown", "RequestTimeout", "InternalError", "IncompleteBody", "BadDigest"}
_ARCHIVED = {"InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"}


class _BeyondEnd(Exception):
    """A range was asked for that starts after the end of the object."""


class Answers:
    """Translates the errors of one store."""

    BeyondEnd = _BeyondEnd

    def __init__(self, url: str, options: Iterable[Any]) -> None:
        self._url = url
        environment = [value for name, value in os.environ.items() if _SECRET_NAMES.search(name)]
        texts = {value for value in [*options, *environment] if isinstance(value, str)}
        self._secrets = sorted((t for t in texts if len(t) >= _SECRET_LEAST), key=len, reverse=True)

    def meaning(self, error: BaseException) -> Exception:
        """Return what to raise for `error`, its cause set to a copy without secrets."""
        text = str(error)
        status = int(found[1]) if (found := _STATUS.search(text)) else None
        code = found[1] if (found := _CODE.search(text)) else ""
        kind = type(error).__name__
        failure = self._classify(kind, status, code, text)
        failure.__cause__ = self._clean(error, text)
        return failure

    def opening(self, make: Callable[[], T]) -> T:
        """Return a new client, or raise what is wrong with its options."""
        try:
            return make()
        except Exception as error:
            line = self._scrub(str(error))
            cause = self._clean(error, str(error))
        failure = InvalidOptionError(
            f"The archive {self._url} cannot be opened: {line} See storage_options."
        )
        failure.__cause__ = cause
        raise failure

    def _classify(self, kind: str, status: int | None, code: str, text: str) -> Exception:
        if kind in ("AlreadyExistsError", "PreconditionError") or status == 412:
            return Conflict(f"HTTP {status} {code}".strip())
        if code in _ARCHIVED:
            return ArchivedError(
                f"The object lies in an archive class of {self._url} and must be restored first. "
                f"{HOW}"
            )
        if code in _REFUSALS:
            return self._refused(status, code, _REFUSALS[code])
        if kind in ("FileNotFoundError", "NotFoundError") or status == 404:
            return Absent(f"HTTP 404 {code}".strip())
        if status == 416:
            return _BeyondEnd()
        if status is None or status >= 500 or status in _RETRIED or code in _RETRIED_CODES:
            return Transient(_transient(status, code, text))
        return self._refused(status, code, _BY_STATUS.get(status, "see the cause"))

    def _refused(self, status: int | None, code: str, advice: str) -> RefusedError:
        answer = " ".join(part for part in (str(status or ""), code) if part)
        return RefusedError(f"The archive {self._url} refused the request ({answer}): {advice}.")

    def _clean(self, error: BaseException, text: str) -> BaseException:
        line = self._scrub(text)
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


def _transient(status: int | None, code: str, text: str) -> str:
    if status is not None:
        return f"it answered HTTP {status} {code}".strip()
    if "TimedOut" in text or "timed out" in text:
        return "the request timed out"
    if "kind: Connect," in text:  # Not ConnectionReset, which comes later.
        return "no connection could be made"
    return "the connection broke"
