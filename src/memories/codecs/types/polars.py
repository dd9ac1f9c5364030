"""The codec of polars frames and series, as IPC streams.

polars shares memory between clones and copies on write, so a frame is decoded once and every reader
gets a clone. Lazy frames can contain code; they are pickled and signed. `arrow_stream` says what
polars trusts, and checks it first: what polars cannot allocate ends the process.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from typing import Any

from memories.codecs.allowance import Allowance
from memories.codecs.base import Codec, Parts
from memories.codecs.registry import add
from memories.codecs.types.arrow_stream import check_stream
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package


class PolarsCodec(Codec):
    """A `DataFrame`, or a `Series` as a frame of one column."""

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]

    def encode(self, value: Any) -> Parts:
        """Write an IPC stream, which is one copy of the frame."""
        series = self.name == "polars.series"
        # Thread 1, in the writer, has the frame's lock and waits for the GIL. Thread 2 has the GIL
        # and waits for the frame's lock: a deadlock. A clone has a lock of its own.
        frame = value.to_frame() if series else value.clone()
        if any(dtype == package("polars").Object for dtype in frame.dtypes):
            raise UnsupportedTypeError(
                "a polars frame with a column of Python objects cannot be stored: convert the "
                "column to a type of polars, or keep the objects beside the frame"
            )
        sink = io.BytesIO()
        level = getattr(package("polars"), "CompatLevel", None)  # Since polars 1.2.
        frame.write_ipc_stream(sink, **({} if level is None else {"compat_level": level.newest()}))
        # Not `getbuffer`: a view of the sink in a loop of references crashes the collector of
        # Python 3.12.0 and 3.12.1 (python/cpython#111049). Nothing is copied here either.
        stream = memoryview(sink.getvalue())
        if not _writes_soundly():
            _require_readable(stream)
        sizes = {"height": frame.height, "name": value.name if series else None}
        return Parts(self.name, sizes, (stream,), frozenset({0}))

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Read the stream."""
        del writable
        frame = _read(parts)
        return frame.to_series(0) if self.name == "polars.series" else frame

    def share(self, parts: Parts) -> Callable[[], Any]:
        """Return a function that decodes at the first call and returns a clone at each."""
        made: list[Any] = []

        def open_clone() -> Any:
            if not made:
                made.append(self.decode(parts))
            return made[0].clone()

        return open_clone


@functools.cache
def _writes_soundly() -> bool:
    """Return whether polars can read all that it writes: before 1.25 it miscounts empty texts."""
    found = re.match(r"(\d+)\.(\d+)", package("polars").__version__)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 25)


def _require_readable(stream: memoryview) -> None:
    """Raise UnsupportedTypeError if a stream that polars has written cannot be read back."""
    try:
        check_stream(stream, "polars frame")
    except CorruptDataError as error:
        raise UnsupportedTypeError(
            f"polars {package('polars').__version__} writes this frame so that it cannot be read "
            "back: upgrade polars to 1.25 or later"
        ) from error


def _read(parts: Parts) -> Any:
    polars = package("polars")
    (buffer,) = parts.buffers
    with Allowance(parts):
        rows = check_stream(buffer, "polars frame")
    if rows != parts.meta["height"]:
        raise CorruptDataError("a stored polars frame has lost rows")
    try:
        frame = polars.read_ipc_stream(io.BytesIO(buffer))
    except polars.exceptions.PolarsError as error:
        raise CorruptDataError(f"a stored polars frame is damaged: {error}") from error
    except BaseException as error:
        # A panic of polars is a BaseException; damaged bytes must not end the process.
        if type(error).__name__ != "PanicException":
            raise
        raise CorruptDataError(f"a stored polars frame is damaged: {error}") from None
    if frame.height != rows:
        raise CorruptDataError("a stored polars frame has lost rows")
    return frame


def register() -> None:
    """Register the codecs of polars."""
    polars = package("polars")
    add(PolarsCodec("polars.frame"), polars.DataFrame)
    add(PolarsCodec("polars.series"), polars.Series)
