"""One sample of the counters.

The counters are totals, so that any two samples give the exact numbers of the time between them,
however many samples in between were removed.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

NO_FIGURES = array("d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The usage of the tiers, and the totals of the reads.

    Attributes:
        usage: The usage of each tier, by its name, in percent of its configured size.
        hits: Reads answered from memory (hot or warm) since the manager was made.
        reads: All reads since then: hits, reads answered by cold or glacier, and misses.
        names: The names of `figures`; all samples share one tuple, to save memory.
        figures: Further metrics of the series, one number for each name.
    """

    usage: Mapping[str, float]
    hits: int
    reads: int
    names: tuple[str, ...] = ()
    figures: array[float] = field(default_factory=lambda: NO_FIGURES)
