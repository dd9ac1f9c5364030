"""Everything without a codec of its own: pickle 5 with its buffers out of band.

Not safe to read from strangers: a frame of it opens only with a trusted signature. The one idea:
the stream is the only part that can run code; the buffers beside it are plain memory.
"""

from __future__ import annotations

import pickle
from typing import Any

from memories.codecs.base import PICKLE, Codec, Parts
from memories.codecs.memory import writable_copy
from memories.errors import UnsupportedTypeError


class PickleCodec(Codec):
    """Any object that pickle takes, refused at `encode` when it does not."""

    name = PICKLE

    def encode(self, value: Any) -> Parts:
        """Pickle `value`; its large buffers stay where they are."""
        found: list[pickle.PickleBuffer] = []
        try:
            stream = pickle.dumps(value, protocol=5, buffer_callback=found.append)
            raw = [buffer.raw() for buffer in found]
        except Exception as error:  # Any class may fail in its own way to be pickled.
            raise UnsupportedTypeError(_refusal(value, error)) from error
        writable = [not view.readonly for view in raw]
        return Parts(self.name, {"writable": writable}, (memoryview(stream), *raw))

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Unpickle; the caller has made sure that whoever wrote the stream is trusted.

        Buffers that were writable are copied, so that the object works as it did.
        """
        stream, *rest = parts.buffers
        flags = parts.meta["writable"]
        buffers = [
            (view if writable else writable_copy(view)) if flag else view.toreadonly()
            for view, flag in zip(rest, flags, strict=True)
        ]
        return pickle.loads(stream, buffers=buffers)


def _refusal(value: Any, error: Exception) -> str:
    kind = type(value)
    return (
        f"a {kind.__module__}.{kind.__qualname__} cannot be stored: it has no codec and pickle "
        f"refuses it ({error}). Store the data inside it instead, move its class to the top level "
        "of a module, or call memories.register_codec"
    )
