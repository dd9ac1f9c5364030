"""Read a region of a frame in remote storage, by fetching only the byte ranges that it needs.

In nearly all cases there are two rounds of requests: one for the head, one for all the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memories.frames.head import MAX_HEAD, FrameHead, read_head
from memories.frames.reader import DescribedFrame, Span

# Returns the bytes of a frame from each start to each stop, counted from its first byte.
Fetch = Callable[[Sequence[Span]], Sequence[memoryview]]


def open_partial(fetch: Fetch, nbytes: int, *, key: str, verified: bool = False) -> PartialFrame:
    """Return the frame of `nbytes` bytes that `fetch` reads from, its head read and checked.

    With `verified` what `fetch` returns was verified: no checksums of the frame are compared.

    Raises:
        CorruptDataError: these are not the bytes of a frame of that key.
        UnsupportedTypeError: a later release wrote it, in a newer version of the format.
    """
    (start,) = fetch([(0, min(nbytes, MAX_HEAD))])
    return PartialFrame(fetch, read_head(start), nbytes, key, verified=verified)


class PartialFrame(DescribedFrame):
    """A frame whose head was read, and whose body is fetched in ranges. For one thread."""

    def __init__(
        self, fetch: Fetch, head: FrameHead, nbytes: int, key: str, *, verified: bool = False
    ) -> None:
        self._fetch = fetch
        self._loaded: dict[Span, memoryview] = {}
        super().__init__(head, nbytes, key, verified=verified)

    def _ensure_loaded(self, spans: Sequence[Span]) -> None:
        missing = [span for span in spans if span not in self._loaded]
        if missing:
            first = self._head.nbytes
            fetched = self._fetch([(first + start, first + stop) for start, stop in missing])
            self._loaded.update(zip(missing, fetched, strict=True))

    def stored_chunk(self, span: Span) -> memoryview:
        """Return a range of the body that was fetched."""
        return self._loaded[span]
