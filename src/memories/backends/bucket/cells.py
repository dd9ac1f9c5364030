"""How keys, records and texts lie in the map: as they are, or encrypted.

An encrypted key always looks the same, so that it can be looked up.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from memories.errors import CorruptDataError, UnavailableError
from memories.model.record import Record
from memories.sealing.cells import CellCipher

DAMAGED = "the archive's map is damaged, and may be removed: it is read from the bucket again"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode
_KEY, _RECORD, _TEXT = b"key\0", b"record\0", b"text\0"


class Cells:
    """What is written as it is; its keys are in the order of their bytes."""

    ordered = True

    def key(self, key: str) -> bytes:
        """Return how a key lies in the map; the empty one, which no value has, stays empty."""
        return key.encode()

    def open_key(self, cell: bytes) -> str:
        """Return the key in a row.

        Raises:
            CorruptDataError: the row does not hold one.
        """
        try:
            return cell.decode()
        except UnicodeDecodeError as error:
            raise CorruptDataError(f"{DAMAGED}: a key in it is not text") from error

    def record(self, record: Record) -> bytes:
        """Return how a record lies in the map."""
        return _encode(record)

    def open_record(self, cell: bytes | None) -> Record:
        """Return the record in a row.

        Raises:
            CorruptDataError: the row does not hold one.
        """
        try:
            return _decode(cell or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptDataError(f"{DAMAGED}: a record in it cannot be read ({error})") from error

    def text(self, text: str) -> str:
        """Return how a text, which may name keys, lies in the map."""
        return text

    def open_text(self, cell: str) -> str:
        """Return the text in a row.

        Raises:
            CorruptDataError: the row does not hold one.
        """
        return cell


class SealedCells(Cells):
    """What is written encrypted."""

    ordered = False

    def __init__(self, cipher: CellCipher) -> None:
        self._cipher = cipher

    def key(self, key: str) -> bytes:
        """Return a key encrypted, always to the same bytes."""
        return self._cipher.seal(_KEY, key.encode()) if key else b""

    def open_key(self, cell: bytes) -> str:
        """Return the key in a row."""
        return super().open_key(self._opened(_KEY, cell)) if cell else ""

    def record(self, record: Record) -> bytes:
        """Return a record encrypted."""
        return self._cipher.seal(_RECORD, super().record(record))

    def open_record(self, cell: bytes | None) -> Record:
        """Return the record in a row."""
        return super().open_record(self._opened(_RECORD, cell or b""))

    def text(self, text: str) -> str:
        """Return a text encrypted, in hexadecimal digits."""
        return self._cipher.seal(_TEXT, text.encode() + b"\0").hex()

    def open_text(self, cell: str) -> str:
        """Return the text in a row."""
        try:
            return self._opened(_TEXT, bytes.fromhex(cell))[:-1].decode()
        except ValueError as error:
            raise CorruptDataError(f"{DAMAGED}: a text in it cannot be read") from error

    def _opened(self, context: bytes, cell: bytes) -> bytes:
        try:
            return self._cipher.open(context, cell)
        except CorruptDataError as error:
            raise CorruptDataError(f"{DAMAGED}: {error}") from error


class UnknownCells(Cells):
    """What is not known yet, because the data key is in a bucket that is away: no row has it."""

    def key(self, key: str) -> bytes:
        """Return what no key is."""
        return b"\xff" if key else b""

    def open_key(self, cell: bytes) -> str:
        """Refuse to read.

        Raises:
            UnavailableError: always.
        """
        raise _unknown()

    def record(self, record: Record) -> bytes:
        """Refuse to write."""
        raise _unknown()

    def open_record(self, cell: bytes | None) -> Record:
        """Refuse to read."""
        raise _unknown()

    def text(self, text: str) -> str:
        """Refuse to write."""
        raise _unknown()

    def open_text(self, cell: str) -> str:
        """Return no text."""
        return "what is known of it is encrypted with a key that is not known yet"


def _unknown() -> UnavailableError:
    return UnavailableError(
        "the data key of the encrypted archive is in the bucket, which has not answered so far"
    )


def in_order(cells: Cells, rows: Sequence[bytes], prefix: str, after: str) -> list[bytes]:
    """Return those rows whose keys start with `prefix` and come after `after`, in their order."""
    begin, last = prefix.encode(), after.encode()
    opened = sorted((cells.open_key(row).encode(), row) for row in rows)
    return [row for key, row in opened if key.startswith(begin) and key > last]
