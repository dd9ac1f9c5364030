"""What one look at the tiers finds.

Not a rate and not a history. The counters count from the beginning, so that any two samples give
the exact figures of the time between them, however many samples in between were thrown away.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

NO_FIGURES = array("d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How full the tiers are, and what became of the reads so far.

    Attributes:
        usage: What each tier holds, by its name, in percent of its configured size.
        hits: Reads answered from memory (hot or warm) since the manager was made.
        reads: All reads since then: hits, and those answered by cold, by glacier or by nobody.
        names: What `figures` are, shared by all samples alike: thousands of samples are kept.
        figures: Whatever else goes into the series, one number for each name.
    """

    usage: Mapping[str, float]
    hits: int
    reads: int
    names: tuple[str, ...] = ()
    figures: array[float] = field(default_factory=lambda: NO_FIGURES)
