"""The reads of a manager: a dict of the front cache first, then everything else.

The first look needs no further call, and must stay about as cheap as a look into a dict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy import ndarray

from memories.compiled import core, mypyc_attr
from memories.core.read_options import ReadOptions
from memories.core.value_reader import MISSING, ValueReader
from memories.engine.front_cache import FrontCache
from memories.foundation.unchecked import Unchecked
from memories.options.settings import check_seconds

# Compiled code has no frame: what it calls sees the frame of its caller as the next one.
CALLER = 1 if core().compiled else 2


@mypyc_attr(allow_interpreted_subclasses=True)
class FrontReader:
    """Reads by key; the base class of the managers."""

    def _read_with(self, reader: ValueReader) -> None:
        """Read from the front cache of `reader`, and what is not there with `reader`."""
        self._reader = reader
        self._read: Callable[..., Any] = reader.read
        self._front: FrontCache = reader.front
        self._at_front: dict[str, Any] = reader.front.values

    def retrieve(
        self,
        key: Unchecked[str],
        default: Any = MISSING,
        region: Any = None,
        copy: Unchecked[bool | None] = None,
        device: Unchecked[str | None] = None,
        like: Any = None,
        timeout: Unchecked[float | None] = None,
    ) -> Any:
        """Return the value of `key`, from whichever tier holds it.

        NumPy arrays are returned as read-only views, mutable objects freshly decoded, immutable
        ones as they are: changing a returned value never changes what is stored.

        Args:
            key: The key it was stored under.
            default: Returned when the key is absent, instead of raising.
            region: An index (`np.s_[a:b, ...]`) of an array; only the chunks in it are read.
            copy: True for a private, writable copy; False for the stored memory itself where the
                default is a private clone (tensors on a device): do not write to it.
            device: `"cpu"` or `"cuda:0"`: where the value, or the tensors in it, are placed.
            like: `"torch"`, `"cupy"`, `"jax"` or `"numpy"`, or the module: the array's library.
            timeout: Seconds to wait for a value in an archive class of the bucket, whose restore
                is started. Without it such a value raises at once.

        Raises:
            InvalidOptionError: the options contradict each other, or the value is not an array.
            KeyNotFoundError: `key` is in no tier and no default was given.
            ArchivedError: it is in an archive class; the message says how to restore it, and
                how long that takes.
            UnavailableError: the bucket that holds it did not answer.
            CorruptDataError: its bytes are damaged.
            UntrustedDataError: it would run code, and no trusted key has signed it.
        """
        # All parameters are positional, and each is compared separately: keyword-only parameters,
        # or one test of all of them, make the plain call slower.
        if (
            region is not None
            or copy is not None
            or device is not None
            or like is not None
            or timeout is not None
        ):
            options = ReadOptions(region, copy, device, like)
            return self._reader.read_as(key, default, options, check_seconds("timeout", timeout))
        try:
            value = self._at_front[key]
            self._front.hits += 1.0
            return value.view() if type(value) is ndarray else value
        except (KeyError, TypeError):
            return self._read(key, default)

    def __getitem__(self, key: Unchecked[str]) -> Any:
        try:
            value = self._at_front[key]
            self._front.hits += 1.0
            return value.view() if type(value) is ndarray else value
        except (KeyError, TypeError):
            pass
        return self._reader.read_listed(key, CALLER)
