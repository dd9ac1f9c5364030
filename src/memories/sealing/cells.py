"""Encrypts names and small records so that equal ones look alike, and can be looked up.

That is AES-SIV (RFC 5297) with a key derived from a data key. It shows which of them are equal and
how long they are, and nothing else; it needs no random numbers and no counter.
"""

from __future__ import annotations

import hmac
from typing import Any

from memories.errors import CorruptDataError
from memories.foundation import optional_imports
from memories.sealing.blob import EXTRA, DataKey

SIV_BYTES = 16  # What is longer than it was by.
_INFO = b"memories cells 1\0"


class CellCipher:
    """Encrypts for one place. Safe to use from many threads and after a fork.

    Args:
        key: The data key.
        place: Where the cells are, an archive for instance: those of another place are refused.

    Raises:
        MissingPackageError: the package `cryptography` is not installed.
    """

    def __init__(self, key: DataKey, place: bytes) -> None:
        aead = optional_imports.require("cryptography.hazmat.primitives.ciphers.aead", extra=EXTRA)
        self._invalid: type[Exception] = optional_imports.require(
            "cryptography.exceptions", extra=EXTRA
        ).InvalidTag
        info = _INFO + place  # HKDF-Expand, two rounds of which yield the whole key.
        first = hmac.digest(key.secret, info + b"\1", "sha256")
        second = hmac.digest(key.secret, first + info + b"\2", "sha256")
        self._siv: Any = aead.AESSIV(first + second)

    def seal(self, context: bytes, data: bytes) -> bytes:
        """Return `data`, which is not empty, encrypted: the same bytes for the same context."""
        sealed: bytes = self._siv.encrypt(data, [context])
        return sealed

    def open(self, context: bytes, cell: bytes) -> bytes:
        """Return what was encrypted.

        Raises:
            CorruptDataError: it was altered, or belongs to another place or context.
        """
        try:
            found: bytes = self._siv.decrypt(cell, [context])
        except (self._invalid, ValueError) as error:
            raise CorruptDataError(
                "an encrypted name was altered, or belongs to another place"
            ) from error
        return found
