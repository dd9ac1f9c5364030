"""What one look at the tiers finds.

Not a rate and not a history. The counters count from the beginning, so that any two samples give
the exact figures of the time between them, however many samples in between were thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How full the tiers are, and what became of the reads so far.

    Attributes:
        usage: What each tier holds, by its name, in percent of its configured size.
        hits: Reads answered from memory (hot or warm) since the manager was made.
        reads: All reads since then: hits, and those answered by cold, by glacier or by nobody.
    """

    usage: Mapping[str, float]
    hits: int
    reads: int
