"""The measured latency of one node, and the limits of waiting that follow from it.

The estimate is the one of TCP (Jacobson 1988): a smoothed time and its mean deviation. After a
limit that was too short, the limit of the next probe is doubled (Karn and Partridge 1987): a node
that has become slow is measured again in the background, and one that hangs delays no call for
longer.
"""

from __future__ import annotations

HEDGE_SECONDS = 0.08  # After so long without an answer the next node is asked as well.
PATIENCE_SECONDS = 0.9  # After so long without an answer a node counts as failed.
CONNECT_SECONDS = 0.5  # For each step of opening a connection.
_USUAL_SECONDS = 0.02
_MOST_PATIENCE = 64


class NodeLatency:
    """How long a node takes to answer a small request.

    Args:
        limit_seconds: No limit is longer.
        expected_seconds: The first estimate.
    """

    __slots__ = ("_deviation", "_limit", "_patience_factor", "hedge_seconds", "seconds")

    def __init__(self, limit_seconds: float, expected_seconds: float = 0.0) -> None:
        self._limit = limit_seconds
        self._patience_factor = 1  # Of the next probe.
        self._estimate(expected_seconds, expected_seconds / 4)

    def record(self, seconds: float) -> None:
        """Record an answer in time; one that came unusually late counts for a few usual ones."""
        seconds = min(seconds, 4 * self.seconds + _USUAL_SECONDS)
        difference = seconds - self.seconds
        if self.seconds:
            deviation = self._deviation + (abs(difference) - self._deviation) / 4
            self._estimate(self.seconds + difference / 8, deviation)
        else:
            self._estimate(seconds, seconds / 4)

    def back_off(self) -> None:
        """Record that no answer came in time: the next probe waits for longer."""
        self._patience_factor = min(2 * self._patience_factor, _MOST_PATIENCE)

    def record_probe(self, seconds: float) -> None:
        """Record the answer to a probe, which had more time: the estimate begins anew."""
        self._patience_factor = 1
        self._estimate(seconds, seconds / 4)

    @property
    def patience_seconds(self) -> float:
        """Return how long to wait for an answer at all."""
        return min(max(PATIENCE_SECONDS, 3 * self._late), self._limit)

    @property
    def connect_seconds(self) -> float:
        """Return how long each step of opening a connection may take."""
        return min(max(CONNECT_SECONDS, 3 * self._late), self._limit)

    @property
    def probe_seconds(self) -> float:
        """Return how long a probe in the background waits for each step."""
        return min(self._patience_factor * self.patience_seconds, self._limit)

    @property
    def _late(self) -> float:
        return 1.25 * self.seconds + 4 * self._deviation

    def _estimate(self, seconds: float, deviation: float) -> None:
        self.seconds, self._deviation = seconds, deviation
        # How long to wait for an answer before another node is asked as well.
        self.hedge_seconds = min(max(HEDGE_SECONDS, self._late), self._limit)
