"""polars frames and series, as IPC streams.

Not lazy frames: a plan can carry code, so it is pickled and signed. The one idea: polars shares its
memory between clones and copies on write, so one decoded frame serves every reader.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from memories.codecs.base import Codec, Parts
from memories.codecs.registry import add
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package


class PolarsCodec(Codec):
    """A `DataFrame`, or a `Series` as a frame of one column."""

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]

    def encode(self, value: Any) -> Parts:
        """Write an IPC stream, which is one copy of the frame."""
        series = self.name == "polars.series"
        # The writer holds the frame's own lock while it waits for the interpreter's: another thread
        # that asked the same frame for anything meanwhile would wait for ever. Nobody has a clone.
        frame = value.to_frame() if series else value.clone()
        if any(dtype == package("polars").Object for dtype in frame.dtypes):
            raise UnsupportedTypeError(
                "a polars frame with a column of Python objects cannot be stored: convert the "
                "column to a type of polars, or keep the objects beside the frame"
            )
        sink = io.BytesIO()
        level = getattr(package("polars"), "CompatLevel", None)  # Before 1.2 there was one way.
        frame.write_ipc_stream(sink, **({} if level is None else {"compat_level": level.newest()}))
        sizes = {"height": frame.height, "name": value.name if series else None}
        return Parts(self.name, sizes, (sink.getbuffer(),), frozenset({0}))

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Read the stream."""
        del writable
        frame = _read(parts)
        return frame.to_series(0) if self.name == "polars.series" else frame

    def share(self, parts: Parts) -> Callable[[], Any]:
        """Clone one frame, itself decoded at the first call, for each reader; it copies nothing."""
        made: list[Any] = []

        def open_clone() -> Any:
            if not made:
                made.append(self.decode(parts))
            return made[0].clone()

        return open_clone


def _read(parts: Parts) -> Any:
    polars = package("polars")
    (buffer,) = parts.buffers
    try:
        frame = polars.read_ipc_stream(io.BytesIO(buffer))
    except polars.exceptions.PolarsError as error:
        raise CorruptDataError(f"a stored polars frame is damaged: {error}") from error
    except BaseException as error:
        # A panic of polars is no Exception; damaged bytes must not end the process.
        if type(error).__name__ != "PanicException":
            raise
        raise CorruptDataError(f"a stored polars frame is damaged: {error}") from None
    if frame.width and frame.height != parts.meta["height"]:
        raise CorruptDataError("a stored polars frame has lost rows")
    return frame


def register() -> None:
    """Register the codecs of polars."""
    polars = package("polars")
    add(PolarsCodec("polars.frame"), polars.DataFrame)
    add(PolarsCodec("polars.series"), polars.Series)
