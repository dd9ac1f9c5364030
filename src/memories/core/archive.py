"""What a manager makes of its archive: records for its journal, warnings, and doubt.

Not the archive itself, which is `backends.bucket`. An archive that nobody could read whole may
hold a key that is nowhere else, so that whoever asks for it is told so, and not that it is absent.
"""

from __future__ import annotations

from memories.backends.bucket import BucketBackend
from memories.backends.disk import DiskBackend
from memories.errors import CorruptDataError
from memories.logs import logger

_NAMED = 10  # Damaged objects that a warning names.


class Archive:
    """The archive of one manager."""

    def __init__(self, bucket: BucketBackend) -> None:
        self.bucket = bucket

    def adopt(self, journal: DiskBackend) -> None:
        """Journal what the bucket knows and this machine does not: another one has archived it."""
        for record in self.bucket.records():
            known = journal.find(record.key)
            if known is None or known.version < record.version:
                journal.note(record)
        damage = self.bucket.damage
        for one in damage[:_NAMED]:
            logger.warning(
                "the archive object %s of %s cannot be read, everything else was adopted: %s "
                "check(repair=True) sets it aside", one.name, self.bucket.url, one.what,
            )  # fmt: skip
        if len(damage) > _NAMED:
            logger.warning("and %d more; check() names them all", len(damage) - _NAMED)
        missing = self.bucket.missing
        if missing:
            named = ", ".join(repr(key[:60]) for key in missing[:_NAMED])
            logger.warning(
                "%d values are missing from the archive %s, for somebody deleted their objects: "
                "%s%s. check(repair=True) forgets them",
                len(missing), self.bucket.url, named, ", ..." if len(missing) > _NAMED else "",
            )  # fmt: skip

    def doubt(self, key: str) -> None:
        """Raise if `key`, which is nowhere, may be in an object that cannot be read."""
        for one in self.bucket.damage:
            if not one.name.startswith("objects/"):
                continue
            raise CorruptDataError(
                f"{key[:200]!r} is in no tier that can be read, and may have been in the archive "
                f"object {one.name} of {self.bucket.url}, which is damaged. If a backup has "
                "it, bring it back and open the archive anew; check(repair=True) gives it up"
            )
