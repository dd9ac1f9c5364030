"""The exceptions that this package raises.

Each is a `MemoriesError` and also the builtin exception that a caller may already catch. Messages
begin with a small letter and end without a full stop; they name what failed, with keys, tiers and
sizes, and then what to do. `__cause__` is the exception of the operating system or of a library.
"""

from __future__ import annotations

from collections.abc import Sequence


class MemoriesError(Exception):
    """The base of every error raised by `memories`."""


class KeyNotFoundError(MemoriesError, KeyError):
    """The key is in no tier. Never raised for "could not find out"."""

    def __str__(self) -> str:
        # KeyError would show the repr of the message.
        return str(self.args[0]) if self.args else ""


class InvalidKeyError(MemoriesError, ValueError):
    """A `str` that cannot be a key: empty, too long, with NUL, or not encodable as UTF-8."""


class InvalidKeyTypeError(InvalidKeyError, TypeError):
    """An object that is not a `str` was given as a key."""


class InvalidOptionError(MemoriesError, ValueError):
    """An argument or a setting has an invalid value."""


class InvalidOptionTypeError(InvalidOptionError, TypeError):
    """An argument has a wrong type or an unknown name, or is missing."""


class UnsupportedTypeError(MemoriesError, TypeError):
    """The value cannot be serialised, so it could never leave RAM."""


class TierFullError(MemoriesError, MemoryError):
    """No tier that may hold the value has room for it."""


class CorruptDataError(MemoriesError, ValueError):
    """Stored bytes are not what was written."""


class UntrustedDataError(MemoriesError, ValueError):
    """Stored bytes would run code when read, and no trusted key has signed them."""


class EncryptionKeyError(MemoriesError, PermissionError):
    """An encrypted store was opened without its key, or with another one; nothing was changed."""


class StorageError(MemoriesError, OSError):
    """A disk or a directory refused an operation."""


class StoreLockedError(MemoriesError, OSError):
    """Another process (or manager) is the writer of this store."""


class ClosedError(MemoriesError, RuntimeError):
    """The manager was cleaned up."""


class ForkedError(MemoriesError, RuntimeError):
    """The manager was opened by the parent process; a forked child may only read."""


class ArchivedError(MemoriesError, OSError):
    """The object is in an archive storage class and must be restored before it can be read."""


class UnavailableError(MemoriesError, ConnectionError):
    """A bucket or a node did not answer in time."""


class RefusedError(UnavailableError):
    """A bucket refused the request: permissions, credentials, region, or a missing feature."""


class ReplicationError(UnavailableError):
    """Fewer nodes than the replication factor stored the value."""


class ConflictError(MemoriesError, RuntimeError):
    """`if_version=` named a version that is no longer the newest; nothing was stored."""


# The errors of a value that exists but cannot be decoded.
UNREADABLE = (CorruptDataError, UnsupportedTypeError, ImportError)


def about_key(error: Exception, key: str) -> Exception:
    """Return `error` with the key in its message: codecs do not know the key."""
    name = repr(key[:200])
    if not isinstance(error, MemoriesError) or name in str(error):
        return error
    made = type(error)(f"{name}: {error}")
    made.__cause__ = error.__cause__
    return made.with_traceback(error.__traceback__)


class BusyError(MemoriesError, TimeoutError):
    """Another call works on the key and does not end; nothing was changed.

    It runs in another thread or process, or is the call that a signal handler interrupts.
    """


def as_one(errors: Sequence[Exception]) -> Exception:
    """Return one error with the messages of all: of their common type, or a StorageError."""
    first, kinds = errors[0], {type(error) for error in errors}
    if len(errors) == 1:
        return first
    kind = type(first) if len(kinds) == 1 and isinstance(first, MemoriesError) else StorageError
    one = kind("; ".join(str(error) for error in errors))
    one.__cause__ = first
    return one
