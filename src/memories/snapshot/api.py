"""Creates snapshots of a hierarchy, as of one instant, and restores them.

`MemoryManager` documents the options. `capture` decides what is in a snapshot, `restore` how it
returns, and `writer` and `reader` handle the bytes of the file.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Literal

from memories.engine.hierarchy import Hierarchy
from memories.errors import InvalidOptionError
from memories.model.record import Record
from memories.model.tiers import TierName
from memories.options.settings import check_choice, check_several, check_tier
from memories.progress import Progress, counted
from memories.sealing.master_key import EncryptionKey
from memories.snapshot.archive_references import bucket_of, holder_of
from memories.snapshot.capture import EntryOrRecord, Selection, capture, same
from memories.snapshot.incremental_chain import IncrementalChain, link_to, links_through
from memories.snapshot.manifest import Base, Linked, SnapshotRow
from memories.snapshot.reader import SnapshotFile, open_snapshot
from memories.snapshot.restore import Mode, Restore
from memories.snapshot.tier_restore import Arrivals, TierRestore
from memories.snapshot.writer import Created, Item, SmallItems, create

if TYPE_CHECKING:
    from memories.backends.bucket import BucketBackend

# What a verified restore moves to RAM before it returns: large values are mapped, and cost nothing.
RESIDENT_BYTES = 10**9
RESIDENT_VALUES = 256

Path = str | os.PathLike[str]


def create_snapshot(
    hierarchy: Hierarchy,
    path: Path,
    *,
    tiers: Iterable[str] | None = None,
    prefix: str = "",
    base: Path | None = None,
    include_glacier: bool | Literal["reference"] = True,
    portable: bool = False,
    key: EncryptionKey | None = None,
    progress: Progress | None = None,
) -> Created:
    """Write every key, as of one instant, into one file at `path`, while writers go on.

    The options and errors are those of `MemoryManager.create_snapshot`; `key` is that of an
    encrypted store, and the file is encrypted, too. Returns what was written.
    """
    assert key is not None or not hierarchy.catalog.journal.is_encrypted, "it was opened by its key"
    selection = _selection(tiers, prefix, include_glacier, portable)
    if base is not None:
        _refuse_same_file(path, base)
    identity, references = secrets.token_bytes(16), list[bytes]()
    binding = hierarchy.trust.binding
    archive, refer = "", _no_reference
    paused: AbstractContextManager[None] = nullcontext()
    if selection.reference_glacier and TierName.GLACIER in hierarchy.tiers:
        bucket = bucket_of(hierarchy, "")
        archive, refer, paused = bucket.url, partial(_refer, bucket, references), bucket.paused()
    # No `ExitStack`: an interrupt at its end leaves a cycle of the error and a frame, which would
    # keep the view of the journal open.
    with (
        nullcontext() if base is None else open_snapshot(base, key) as earlier,
        paused,
        hierarchy.catalog.instant() as instant,
    ):
        links, unchanged = list[Base](), None
        if earlier is not None:
            _require_alike(earlier, key)
            links, unchanged = links_through(earlier, path), _Unchanged(earlier.rows()).find
        total = sum(entry.size for entry in instant.entries if entry.backed is None)
        total += hierarchy.catalog.journal.usage().live
        items = capture(hierarchy, instant, selection, unchanged, refer)
        return create(
            path,
            _then(items, lambda: _protect(hierarchy, archive, identity, references)),
            sequence=instant.version,
            bases=links,
            archive=archive,
            identity=identity,
            stores=[] if binding is None else binding.state_all(identity),
            created_at=hierarchy.clock.wall(),
            key=key,
            progress=counted(progress, total),
        )


def restore_snapshot(
    hierarchy: Hierarchy,
    path: Path,
    *,
    mode: Literal["replace", "merge", "keep"] = "replace",
    verify: Literal["full", "lazy"] = "full",
    wait: bool = False,
    bases: Sequence[Path] = (),
    key: EncryptionKey | None = None,
    progress: Progress | None = None,
) -> TierRestore:
    """Restore the file at `path`; no value is copied or decoded until it is used.

    The options and errors are those of `MemoryManager.restore_snapshot`. Values return to the tiers
    they had in the background, the first few hundred before this returns if the file was verified.
    Returns what moves the rest; the caller stops it before another restore, and at the end.
    """
    check_choice("mode", mode, tuple(Mode))
    check_choice("verify", verify, ("full", "lazy"))
    with ExitStack() as stack:
        others = tuple(check_several("bases", bases))
        chain = stack.enter_context(IncrementalChain(path, others, key))
        if verify == "full":
            chain.verify(counted(progress, chain.file_bytes))
        arrivals = Arrivals(hierarchy, chain)
        restore = Restore(
            hierarchy, chain, Mode(mode),
            copy_later=verify == "lazy" and not wait, arrivals=arrivals if wait else None,
            verified=verify == "full",
        )  # fmt: skip
        restore.check()
        if hierarchy.trust.binding is not None:
            for file in chain.files:
                hierarchy.trust.binding.accept(file.root.id, file.root.stores or ())
        restore.run()
        stack.pop_all()
    full = verify == "full"
    tier_restore = TierRestore(
        hierarchy, chain, restore.since,
        imported=restore.imported, verified=full and restore.shared, arrived=arrivals.count,
    )  # fmt: skip
    come = full and tier_restore.run(RESIDENT_BYTES, RESIDENT_VALUES)
    if not come and not (wait and tier_restore.run()):
        tier_restore.start()
    return tier_restore


def _require_alike(base: SnapshotFile, key: EncryptionKey | None) -> None:
    """Raise InvalidOptionError for a plain base of an encrypted store, whose values it shows."""
    if key is not None and not base.is_encrypted:
        raise InvalidOptionError(
            f"base={str(base.path)!r} is not encrypted, and the store is: write a whole snapshot "
            "first, and then those that build on it"
        )


def _selection(
    tiers: Iterable[str] | None,
    prefix: str,
    include_glacier: bool | Literal["reference"],
    portable: bool,
) -> Selection:
    if not isinstance(include_glacier, bool):
        check_choice("include_glacier", include_glacier, ("reference",))
    chosen = frozenset(
        TierName if tiers is None else map(check_tier, check_several("tiers", tiers))
    )
    if include_glacier is False:
        chosen -= {TierName.GLACIER}
    return Selection(
        prefix=prefix,
        tiers=chosen,
        reference_glacier=include_glacier == "reference",
        portable=portable,
    )


class _Unchanged:
    """Looks up versions in an earlier snapshot; asked in key order, like its rows."""

    def __init__(self, rows: Iterator[SnapshotRow]) -> None:
        self._rows = rows
        self._row = next(rows, None)

    def find(self, found: EntryOrRecord) -> Linked | None:
        """Return the link to where the earlier snapshot holds this very version, if it does."""
        while self._row is not None and self._row.key < found.key:
            self._row = next(self._rows, None)
        row = self._row
        if row is None or row.key != found.key or not same(row, found):
            return None
        return link_to(row)


def _refuse_same_file(path: Path, base: Path) -> None:
    if os.path.realpath(path) == os.path.realpath(base):
        raise InvalidOptionError(
            f"base={os.fspath(base)!r} is the file that would be replaced; write the incremental "
            "snapshot to another path"
        )


def _refer(bucket: BucketBackend, references: list[bytes], record: Record) -> bytes:
    """Remember a reference to an archived frame and return where that lies."""
    place = bucket.place_of(record)
    references.append(place)
    return place


def _no_reference(record: Record) -> bytes:
    raise AssertionError(f"{record.key!r} lies in an archive that does not exist")


def _protect(hierarchy: Hierarchy, archive: str, identity: bytes, references: list[bytes]) -> None:
    if references:
        bucket = bucket_of(hierarchy, archive)
        bucket.sync()  # Another machine cannot read what is staged on this one.
        bucket.protect(*references, holder=holder_of(identity))


def _then(
    items: Iterator[Item | SmallItems], last: Callable[[], object]
) -> Iterator[Item | SmallItems]:
    """Yield `items`, and do something when they are used up."""
    yield from items
    last()
