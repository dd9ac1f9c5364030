"""Every error this package raises, one line each.

Each is a `MemoriesError` and the builtin a caller would already be catching. The message comes
first, in one sentence, followed by what to do; `__cause__` keeps the foreign error.
"""

from __future__ import annotations

from collections.abc import Sequence


class MemoriesError(Exception):
    """The base of every error raised by `memories`."""


class KeyNotFoundError(MemoriesError, KeyError):
    """The key is in no tier. Never raised for "could not find out"."""

    def __str__(self) -> str:
        # KeyError would show the repr of a whole sentence.
        return str(self.args[0]) if self.args else ""


class InvalidKeyError(MemoriesError, ValueError):
    """A `str` that cannot be a key: empty, too long, with NUL, or not encodable as UTF-8."""


class InvalidKeyTypeError(InvalidKeyError, TypeError):
    """Something that is no `str` was given as a key."""


class InvalidOptionError(MemoriesError, ValueError):
    """An argument or a setting has a value that means nothing here."""


class UnsupportedTypeError(MemoriesError, TypeError):
    """The value cannot be serialised, so it could never leave RAM."""


class TierFullError(MemoriesError, MemoryError):
    """No tier that may hold the value has room for it."""


class CorruptDataError(MemoriesError, ValueError):
    """Stored bytes are not what was written."""


class UntrustedDataError(MemoriesError, ValueError):
    """Stored bytes would run code when read, and no trusted key has signed them."""


class StorageError(MemoriesError, OSError):
    """A disk or a directory refused what was asked of it."""


class StoreLockedError(MemoriesError, OSError):
    """Another process (or manager) is the writer of this store."""


class ClosedError(MemoriesError, RuntimeError):
    """The manager was cleaned up."""


class ForkedError(MemoriesError, RuntimeError):
    """The manager was opened by the parent process; a forked child may only read."""


class ArchivedError(MemoriesError, OSError):
    """The object lies in an archive class and must be restored before it can be read."""


class UnavailableError(MemoriesError, ConnectionError):
    """A bucket or a node did not answer in time."""


class RefusedError(UnavailableError):
    """A bucket answered, and refused: permissions, credentials, region, or what it cannot do."""


class ReplicationError(UnavailableError):
    """Fewer nodes than the replication factor took the write."""


class ConflictError(MemoriesError, RuntimeError):
    """`if_version=` named a version that is no longer the newest; nothing was stored."""


# What a value that is there, and cannot be given to whoever asks, is reported by.
UNREADABLE = (CorruptDataError, UnsupportedTypeError, ImportError)


def about_key(error: Exception, key: str) -> Exception:
    """Return `error` with the key in its message: where a value is decoded nobody knows the key."""
    name = repr(key[:200])
    if not isinstance(error, MemoriesError) or name in str(error):
        return error
    made = type(error)(f"{name}: {error}")
    made.__cause__ = error.__cause__
    return made.with_traceback(error.__traceback__)


class BusyError(MemoriesError, TimeoutError):
    """Somebody else works on the key and does not come to an end; nothing was changed.

    Another thread, or the very call that a signal handler interrupts.
    """


def as_one(errors: Sequence[Exception]) -> Exception:
    """Return one error that says what each of `errors` does: of their kind, or a StorageError."""
    first, kinds = errors[0], {type(error) for error in errors}
    if len(errors) == 1:
        return first
    kind = type(first) if len(kinds) == 1 and isinstance(first, MemoriesError) else StorageError
    one = kind("; ".join(str(error) for error in errors))
    one.__cause__ = first
    return one
