"""Remembers which values were worth compressing, by kind and size, and how fast the medium is.

For a value below some megabytes the trials take longer than everything else about its frame. Where
the latest trials for its kind and size saved too little, the next values are stored raw, after each
failed trial twice as many; where one succeeded, the next values are compressed in the same way.
"""

from __future__ import annotations

from typing import NamedTuple

from memories.frames.compression import Method

FIRST_PAUSE = 16
LONGEST_PAUSE = 1024
SAME_WAY = 256  # So many values are compressed in one way before the ways are tried again.
LARGER_PAUSE = 64  # The same two for values that are not small: a trial costs them less.
LARGER_SAME_WAY = 32
LARGE_NBYTES = 1 << 24  # The trials for a value of more bytes take little of its time.
MEASURED_NBYTES = 1 << 16  # Shorter writes say little of the bandwidth.
# Of the latest write in the running mean of the bandwidth. A write that took long may have waited
# for other programs, as compressing would have; one that was fast shows what the medium can do.
_WEIGHT_OF_FASTER, _WEIGHT_OF_SLOWER = 0.3, 0.03


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

    __slots__ = ("compressed", "left", "longest", "method", "pause", "same", "tried", "untried")

    def __init__(self, longest: int, same: int) -> None:
        self.longest = longest  # The longest pause.
        self.same = same  # Values that are compressed in one way.
        self.method: Method | None = None  # How the latest values were compressed.
        self.left = 0  # Values before the next trial.
        self.pause = 0  # What `left` was after the latest trial, if that failed.
        self.tried = self.compressed = self.untried = 0

    def record_trial(self, method: Method | None) -> None:
        """Record how a value was compressed after trials, None if it is stored raw."""
        self.tried += 1
        self.method = method
        if method is None:
            self.pause = min(max(FIRST_PAUSE, 2 * self.pause), self.longest)
            self.left = self.pause
        else:
            self.compressed += 1
            self.pause, self.left = 0, self.same


class CompressionHistory:
    """The size classes of one tier, whose compressor does not change, and its bandwidth.

    `bandwidth` is what the medium is taken to write in a second before that was measured; 0 if
    nothing is known.

    Attributes:
        scarce: Whether room on the medium is worth more than time.
    """

    def __init__(self, bandwidth: float = 0.0) -> None:
        self.scarce = False
        self._classes: dict[tuple[str, int], SizeClass] = {}
        self._larger: dict[tuple[str, int], SizeClass] = {}
        self._seconds_per_byte = 1 / bandwidth if bandwidth else 0.0  # Of writes.

    def size_class(self, codec: str, nbytes: int) -> SizeClass:
        """Return what is known of small values of this codec and of about this size."""
        return _class_in(self._classes, codec, nbytes, LONGEST_PAUSE, SAME_WAY)

    def larger_class(self, kind: str, nbytes: int) -> SizeClass:
        """Return the same for values that are not small; `kind` may name more than the codec."""
        # Nothing is weighed before a write was measured, so the next value is tried again.
        same = LARGER_SAME_WAY if self._seconds_per_byte else 0
        found = _class_in(self._larger, kind, nbytes, LARGER_PAUSE, same)
        found.same = same
        return found

    def record_write(self, nbytes: int, seconds: float) -> None:
        """Record how long the medium took to write so many bytes."""
        if nbytes >= MEASURED_NBYTES and seconds > 0:
            each, mean = seconds / nbytes, self._seconds_per_byte
            weight = _WEIGHT_OF_FASTER if each < mean else _WEIGHT_OF_SLOWER
            self._seconds_per_byte = mean + weight * (each - mean) if mean else each

    def is_worth(self, saved: int, seconds: float) -> bool:
        """Return whether the medium would take longer to write what is saved in `seconds`."""
        return self.scarce or not self._seconds_per_byte or seconds < saved * self._seconds_per_byte

    def counts(self) -> SmallFrames:
        """Return what was done so far."""
        found = list(self._classes.values())
        return SmallFrames(
            sum([one.tried for one in found]),
            sum([one.compressed for one in found]),
            sum([one.untried for one in found]),
        )


def _class_in(
    classes: dict[tuple[str, int], SizeClass], kind: str, nbytes: int, longest: int, same: int
) -> SizeClass:
    name = (kind, nbytes.bit_length())
    found = classes.get(name)
    return classes.setdefault(name, SizeClass(longest, same)) if found is None else found
