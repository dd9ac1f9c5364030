"""The settings of migration; the defaults suit most programs."""

from __future__ import annotations

from dataclasses import dataclass

from memories.errors import InvalidOptionError, InvalidOptionTypeError
from memories.foundation.wrong_calls import explain_construction


@explain_construction
@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationSettings:
    """How often migration runs, and how full a tier may be.

    Attributes:
        interval_seconds: Between two runs.
        high_watermark: Share of a tier's effective capacity above which values are moved down; of
            hot and warm together, where hot is in RAM.
        low_watermark: Share at which this stops.
        promote: Whether values that are read move to faster tiers.
        demote_idle: Whether values that are not read leave the hot tier.
    """

    interval_seconds: float = 0.1
    high_watermark: float = 0.99
    low_watermark: float = 0.98
    promote: bool = True
    demote_idle: bool = True

    def __post_init__(self) -> None:
        """Raise InvalidOptionError for invalid values."""
        for name in ("interval_seconds", "high_watermark", "low_watermark"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidOptionTypeError(f"{name}={value!r:.60} must be a number")
        for name in ("promote", "demote_idle"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidOptionTypeError(
                    f"{name}={getattr(self, name)!r:.60} must be True or False"
                )
        if not 0 < self.low_watermark <= self.high_watermark <= 1:
            raise InvalidOptionError(
                f"watermarks must satisfy 0 < low <= high <= 1, not low={self.low_watermark}, "
                f"high={self.high_watermark}"
            )
        if not self.interval_seconds > 0:
            raise InvalidOptionError(
                f"interval_seconds must be above 0, not {self.interval_seconds}"
            )
