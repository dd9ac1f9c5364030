"""Brings the items of a directory of diskcache over, without diskcache.

Its values are numbers, text, bytes and pickles. A pickle runs code when it is read, so those are
read only if the caller trusts all who could write the directory.
"""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from memories.errors import CorruptDataError, InvalidOptionError, MemoriesError
from memories.foundation.regular_file import read_regular
from memories.integrations.diskcache.cache import Cache
from memories.integrations.diskcache.items import CLOCK, Items, Row
from memories.integrations.diskcache.keys import name_of
from memories.integrations.diskcache.queue import Queue, place_of
from memories.integrations.diskcache.settings import EVICTION_POLICY
from memories.progress import ProgressChoice, chosen, counted, skip

_RAW, _BINARY, _TEXT, _PICKLE = 1, 2, 3, 4  # The modes of diskcache.
_COLUMNS = "key, raw, expire_time, tag, size, mode, filename, value"


class ImportedItem(NamedTuple):
    """A row of the table of diskcache."""

    key: Any
    raw: int
    expire_time: float | None
    tag: Any
    size: int
    mode: int
    filename: str | None
    value: Any


@dataclass(slots=True)
class ImportReport:
    """What has become of the items of a directory.

    Attributes:
        imported: Items that were stored.
        present: Items left out because the target has their key.
        expired: Items that had expired.
        pickles: Items left out because their key or value is a pickle.
        failed: What could not be read or stored: the key, and why.
    """

    imported: int = 0
    present: int = 0
    expired: int = 0
    pickles: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def import_directory(
    source: Path, target: Cache, *, trust_pickles: bool = False, progress: ProgressChoice = None
) -> ImportReport:
    """Store the items of a `Cache` or a `FanoutCache` of diskcache, in their order.

    Called again, it goes on where it ended. The source is not changed.

    Args:
        source: The directory.
        target: Where the items go; keys that it has are left as they are.
        trust_pickles: Read pickles, which may run code: only of directories that no other user
            could write to.
        progress: Called with the bytes done and the total; or True for a bar.

    Raises:
        InvalidOptionError: the source is not a directory of diskcache.
    """
    folders = [found.parent for found in sorted(source.glob("*/cache.db"))]
    if (source / "cache.db").exists():
        folders = [source]
    if not folders:
        raise InvalidOptionError(f"{source} is not a directory of diskcache: it lacks cache.db")
    report, total = ImportReport(), sum(map(_bytes_of, folders))
    step = counted(chosen(progress, "import"), total) or skip
    for folder in folders:
        for item in _items(folder):
            try:
                _import(folder, item, target, trust_pickles, report)
            except (MemoriesError, OSError, UnicodeDecodeError) as error:
                report.failed.append((repr(item.key)[:100], str(error)))
            step(item.size)
    return report


def settings_of(source: Path) -> dict[str, Any]:
    """Return how much a directory of diskcache holds at most, and which items leave it."""
    folders = [source] if (source / "cache.db").exists() else sorted(source.glob("*/"))
    found: dict[str, Any] = {}
    for folder in folders:
        if not (folder / "cache.db").exists():
            continue
        with closing(_database(folder)) as database:
            rows = dict(database.execute("SELECT key, value FROM Settings"))
        if isinstance(limit := rows.get("size_limit"), int):  # Each of several has its share.
            found["size_limit"] = found.get("size_limit", 0) + max(0, limit)
        if (policy := rows.get("eviction_policy")) in EVICTION_POLICY:
            found["eviction_policy"] = policy
    return found


def _import(
    folder: Path, item: ImportedItem, target: Cache, trust_pickles: bool, report: ImportReport
) -> None:
    if item.expire_time is not None and item.expire_time <= CLOCK.wall():
        report.expired += 1
        return
    if not trust_pickles and (not item.raw or item.mode == _PICKLE):
        report.pickles += 1
        return
    key = item.key if item.raw else _unpickled(item.key)
    name, kept = name_of(key)
    items = target._items
    with items.locked(patient=True):
        if items.manager.exists(name):
            _enqueue(items, key)  # After a kill it may be missing there.
            report.present += 1
            return
        value = _value(folder, item)
        items.write(name, value, Row(items.next_number(), item.tag, kept, item.expire_time))
        if item.mode != _PICKLE and items.read(name) != value:
            raise CorruptDataError("it was read back with another value")
        _enqueue(items, key)
    report.imported += 1


def _enqueue(items: Items, key: Any) -> None:
    """Let an item be pulled if its key is one that `push` makes."""
    place = place_of(key)
    if place is not None:
        prefix, number = place
        Queue(items, prefix).include(number)


def _value(folder: Path, item: ImportedItem) -> Any:
    content = item.value
    if item.filename is not None:
        path = (folder / item.filename).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise CorruptDataError(f"its file {item.filename!r:.100} is outside of the directory")
        content = read_regular(path, limit=path.stat().st_size).data
    if item.mode == _PICKLE:
        return _unpickled(content)
    if item.mode == _TEXT and isinstance(content, bytes):
        return content.decode()
    if item.mode not in (_RAW, _BINARY, _TEXT):
        raise CorruptDataError(f"mode {item.mode!r:.20} is none of diskcache")
    return content


def _unpickled(data: bytes) -> Any:
    try:
        return pickle.loads(data)
    except Exception as error:  # Whatever the classes in it raise.
        raise CorruptDataError(f"its pickle cannot be read: {error!r:.200}") from error


def _items(folder: Path) -> Iterator[ImportedItem]:
    with closing(_database(folder)) as database:
        # In the order of insertion; the table may be long.
        for row in database.execute(f"SELECT {_COLUMNS} FROM Cache ORDER BY rowid"):
            yield ImportedItem(*row)


def _bytes_of(folder: Path) -> int:
    with closing(_database(folder)) as database:
        query = "SELECT CAST(COALESCE(SUM(size), 0) AS INTEGER) FROM Cache"
        return int(database.execute(query).fetchone()[0])


def _database(folder: Path) -> sqlite3.Connection:
    try:
        found = sqlite3.connect(f"{(folder / 'cache.db').resolve().as_uri()}?mode=ro", uri=True)
        found.execute(f"SELECT {_COLUMNS} FROM Cache LIMIT 1")
    except sqlite3.Error as error:
        raise InvalidOptionError(
            f"{folder / 'cache.db'} is not a table of diskcache: {error}"
        ) from error
    return found
