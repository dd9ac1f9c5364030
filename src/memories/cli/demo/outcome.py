"""The results of one run of the demo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memories.cli.demo.baselines import Baseline
from memories.cli.demo.watch import Pair
from memories.model.tiers import TierName


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTierResult:
    """One tier, at the end of the session."""

    answered: int
    keys: int
    configured_bytes: int
    used_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPairResult:
    """The number of moves from one tier to another, and of different keys among them."""

    moves: int
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The measurements of one run.

    Attributes:
        raw_bytes: The size of the decoded raster.
        reads: Requests of the viewer.
        absent: Requests for a tile that was not stored yet; the viewer decoded and stored it.
        different: Answers that differed from the file; more than 0 is a defect.
        seconds: The total time that the viewer waited for answers.
        storing_seconds: The part of `seconds` for decoding and storing absent tiles.
        session_seconds: The duration of the session, with the pauses between frames.
    """

    shape: tuple[int, int, int]
    raw_bytes: int
    raster_tiles: int
    tiers: dict[TierName, DemoTierResult]
    moves: dict[Pair, DemoPairResult]
    reads: int
    absent: int
    different: int
    seconds: float
    storing_seconds: float
    session_seconds: float
    from_file: Baseline
    from_ram: Baseline
    peak_rss_bytes: int
    total_seconds: float
    picture: Path | None

    @property
    def hit_rate_percent(self) -> float:
        """Return the share of reads answered from hot or warm; NaN without reads."""
        hits = sum(tier.answered for name, tier in self.tiers.items() if not name.durable)
        return 100.0 * hits / self.reads if self.reads else math.nan

    def as_json(self) -> dict[str, Any]:
        """Return the results as `--json` prints them."""
        return {
            "raster_bytes": self.raw_bytes,
            "raster_tiles": self.raster_tiles,
            "tiers": {
                str(name): {
                    "answered": tier.answered,
                    "keys": tier.keys,
                    "bytes": tier.used_bytes,
                    "peak_bytes": tier.peak_bytes,
                    "configured_bytes": tier.configured_bytes,
                }
                for name, tier in self.tiers.items()
            },
            "moves": [
                {"from": str(source), "to": str(target), "moves": one.moves, "keys": one.keys}
                for (source, target), one in self.moves.items()
            ],
            "reads": self.reads,
            "absent": self.absent,
            "different": self.different,
            "seconds": self.seconds,
            "storing_seconds": self.storing_seconds,
            "from_file_seconds": self.from_file.seconds,
            "from_ram_seconds": self.from_ram.seconds,
            "from_ram_preparing_seconds": self.from_ram.preparing_seconds,
            "session_seconds": self.session_seconds,
            "total_seconds": self.total_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "picture": None if self.picture is None else str(self.picture),
        }
