"""A frame that lies elsewhere, of which only what a region needs is brought here.

Not a cache: what was brought goes with the frame. Two rounds of requests in nearly all cases: one
for the head, one for all the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memories.frames.head import MAX_HEAD, FrameHead, read_head
from memories.frames.reader import DescribedFrame, Span

# Returns the bytes of a frame from each start to each stop, counted from its first byte.
Fetch = Callable[[Sequence[Span]], Sequence[memoryview]]


def open_partial(fetch: Fetch, nbytes: int, *, key: str) -> PartialFrame:
    """Return the frame of `nbytes` bytes that `fetch` reads from, its head read and checked.

    Raises:
        CorruptDataError: these are not the bytes of a frame of that key.
        UnsupportedTypeError: the frame is of a format version from the future.
    """
    (start,) = fetch([(0, min(nbytes, MAX_HEAD))])
    return PartialFrame(fetch, read_head(start), nbytes, key)


class PartialFrame(DescribedFrame):
    """A frame whose head was read, and whose body is fetched in parts. For one thread."""

    def __init__(self, fetch: Fetch, head: FrameHead, nbytes: int, key: str) -> None:
        self._fetch = fetch
        self._here: dict[Span, memoryview] = {}
        super().__init__(head, nbytes, key)

    def _bring(self, spans: Sequence[Span]) -> None:
        missing = [span for span in spans if span not in self._here]
        if missing:
            first = self._head.nbytes
            stretches = self._fetch([(first + start, first + stop) for start, stop in missing])
            self._here.update(zip(missing, stretches, strict=True))

    def stored_chunk(self, span: Span) -> memoryview:
        """Return a stretch of the body that was brought."""
        return self._here[span]
