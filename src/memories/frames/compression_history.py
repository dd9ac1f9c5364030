"""Remembers which small values were worth compressing, by codec and size.

For a small value the trials take longer than everything else about its frame. Where the latest
trials for its codec and size saved too little, the next values are stored raw, after each failed
trial twice as many; where one succeeded, the next values are compressed in the same way.
"""

from __future__ import annotations

from typing import NamedTuple

from memories.frames.compression import Method

FIRST_PAUSE = 16
LONGEST_PAUSE = 1024
SAME_WAY = 256  # So many values are compressed in one way before the ways are tried again.


class SmallFrames(NamedTuple):
    """What was done with values that are neither tiny nor large; exact with one thread.

    Attributes:
        tried: Values for which several ways to compress them were tried.
        compressed: Values that are stored compressed.
        untried: Values that are stored raw without a trial.
    """

    tried: int
    compressed: int
    untried: int


class SizeClass:
    """What is known of the values of one codec and of about one size.

    Threads may change it together: a change that is lost costs one trial more or less.
    """

    __slots__ = ("compressed", "left", "method", "pause", "tried", "untried")

    def __init__(self) -> None:
        self.method: Method | None = None  # How the latest values were compressed.
        self.left = 0  # Values before the next trial.
        self.pause = 0  # What `left` was after the latest trial, if that failed.
        self.tried = self.compressed = self.untried = 0

    def record_trial(self, method: Method | None) -> None:
        """Record how a value was compressed after trials, None if it is stored raw."""
        self.tried += 1
        self.method = method
        if method is None:
            self.pause = min(max(FIRST_PAUSE, 2 * self.pause), LONGEST_PAUSE)
            self.left = self.pause
        else:
            self.compressed += 1
            self.pause, self.left = 0, SAME_WAY


class CompressionHistory:
    """The size classes of one tier, whose compressor does not change."""

    def __init__(self) -> None:
        self._classes: dict[tuple[str, int], SizeClass] = {}

    def size_class(self, codec: str, nbytes: int) -> SizeClass:
        """Return what is known of values of this codec and of about this size."""
        name = (codec, nbytes.bit_length())
        found = self._classes.get(name)
        if found is None:
            found = self._classes.setdefault(name, SizeClass())
        return found

    def counts(self) -> SmallFrames:
        """Return what was done so far."""
        found = list(self._classes.values())
        return SmallFrames(
            sum([one.tried for one in found]),
            sum([one.compressed for one in found]),
            sum([one.untried for one in found]),
        )
