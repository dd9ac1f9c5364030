"""The objects of the archive that snapshots by reference protect, and their release.

The archive knows a snapshot by its identity only: the file itself may be anywhere, or deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from memories.engine.hierarchy import Hierarchy
from memories.errors import InvalidOptionError
from memories.model.tiers import TierName

if TYPE_CHECKING:
    from memories.backends.bucket import BucketBackend

_HOLDER = "snapshot "


def bucket_of(hierarchy: Hierarchy, archive: str) -> BucketBackend:
    """Return the archive of a hierarchy.

    Raises:
        InvalidOptionError: there is none.
    """
    tier = hierarchy.tiers.durable.get(TierName.GLACIER)
    if tier is None:
        raise InvalidOptionError(
            f"the snapshot refers to values in the archive {archive}, and the glacier tier is "
            "disabled: open the manager with glacier_memory_enabled=True and that glacier_url"
        )
    return cast("BucketBackend", tier.backend)


def holder_of(identity: bytes) -> str:
    """Return the name under which a snapshot protects what it refers to."""
    return f"{_HOLDER}{identity.hex()}"


def referring(hierarchy: Hierarchy) -> dict[str, int]:
    """Return the identities of the snapshots that refer to the archive, and to how many objects."""
    if TierName.GLACIER not in hierarchy.tiers:
        return {}
    held = bucket_of(hierarchy, "").holders().items()
    return {name.removeprefix(_HOLDER): n for name, n in held if name.startswith(_HOLDER)}


def release(hierarchy: Hierarchy, identity: str) -> int:
    """Release the objects that a snapshot protects, and return their number.

    Those that no key names either are unlinked after their grace time.

    Raises:
        InvalidOptionError: no snapshot of that identity protects anything here.
    """
    held = referring(hierarchy)
    if identity not in held:
        known = f"those that do: {', '.join(held)}" if held else "no snapshot refers to it"
        raise InvalidOptionError(
            f"the snapshot {identity!r:.80} does not refer to this archive; {known}"
        )
    bucket_of(hierarchy, "").unprotect(holder=f"{_HOLDER}{identity}")
    return held[identity]
