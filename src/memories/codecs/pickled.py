"""Everything without a codec of its own: pickle 5 with its buffers out of band.

Not safe to read from strangers: a frame of it opens only with a trusted signature. The one idea:
the stream is the only part that can run code; the buffers beside it are plain memory.
"""

from __future__ import annotations

import copyreg
import inspect
import io
import operator
import pickle
import re
from collections.abc import Callable, Iterable
from typing import Any

from memories.codecs import exceptions, main_classes
from memories.codecs.base import PICKLE, Codec, Parts
from memories.codecs.buffers import writable_copy
from memories.errors import MemoriesError, UnsupportedTypeError

_plainly = operator.methodcaller("__reduce_ex__", 5)
# How a pickle names a class of the script: its module, memoized, and the name, behind its length.
_OF_SCRIPT = re.compile(rb"\x8c(?:\x08__main__|\x0b__mp_main__)\x94\x8c(.)", re.DOTALL)


class PickleCodec(Codec):
    """Any object that pickle takes, refused at `encode` when it does not."""

    name = PICKLE

    def encode(self, value: Any) -> Parts:
        """Pickle `value`; its large buffers stay where they are."""
        found: list[pickle.PickleBuffer] = []
        try:
            stream = _dumps(value, found.append)
            raw = [buffer.raw() for buffer in found]
        except MemoryError:
            raise
        except Exception as error:  # Any class may fail in its own way to be pickled.
            raise UnsupportedTypeError(_refusal(value, error)) from error
        main_classes.record_names(_names_of_script(stream))
        writable = [not view.readonly for view in raw]
        return Parts(self.name, {"writable": writable}, (memoryview(stream), *raw))

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Unpickle; the caller has made sure that whoever wrote the stream is trusted.

        Buffers that were writable are copied, so that the object works as it did.

        Raises:
            UnsupportedTypeError: a class is not there, or does not take what it once gave.
        """
        stream, *rest = parts.buffers
        flags = parts.meta["writable"]
        buffers = [
            (view if writable else writable_copy(view)) if flag else view.toreadonly()
            for view, flag in zip(rest, flags, strict=True)
        ]
        try:
            return _loads(stream, buffers)
        except (MemoriesError, MemoryError, pickle.UnpicklingError, EOFError):
            raise
        except Exception as error:  # The stream is as it was signed, so it is code that differs.
            raise UnsupportedTypeError(
                f"the code that a stored object belongs to cannot put it together again: "
                f"{type(error).__name__}: {error}"
            ) from error


class _Reducers(dict[type, Callable[[Any], Any]]):
    """How instances of each class are taken apart: as pickle does it, but for exceptions.

    Asked once for each class in a stream.
    """

    def __missing__(self, kind: type) -> Callable[[Any], Any]:
        found = copyreg.dispatch_table.get(kind)
        if found is None:
            if issubclass(kind, type):
                raise KeyError(kind)  # A class itself: pickle writes its name.
            if issubclass(kind, BaseException):
                found = exceptions.reduce_exception
            else:
                _require_makeable(kind)
                found = _plainly
            if main_classes.is_main_class(kind):
                main_classes.record_names([kind.__qualname__])
        self[kind] = found
        return found


class _Unpickler(pickle.Unpickler):
    """Finds classes, and says which one it is that is not there."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what `module` calls `name`, importing the module."""
        try:
            return super().find_class(module, name)
        except (MemoriesError, MemoryError):
            raise
        except Exception as error:  # Importing runs whatever code the module has.
            raise UnsupportedTypeError(main_classes.explain_missing(module, name, error)) from error


def _dumps(value: Any, callback: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    sink = io.BytesIO()
    pickler = pickle.Pickler(sink, 5, buffer_callback=callback)
    pickler.dispatch_table = _Reducers()
    pickler.dump(value)
    return sink.getvalue()


def _loads(stream: memoryview | bytes, buffers: Iterable[Any]) -> Any:
    return _Unpickler(io.BytesIO(stream), buffers=buffers).load()


def _require_makeable(kind: type) -> None:
    """Refuse a class whose instances pickle writes down, and could not make again.

    Pickle hands `__new__` what `__getnewargs__` gives: nothing, or the one value of a builtin. A
    class that asks it for more fails when it is read; nothing of it is run to find out.
    """
    new, arguments = kind.__new__, getattr(kind, "__getnewargs__", None)
    usual = all(
        vars(object)[name] is getattr(kind, name, None) for name in ("__reduce__", "__reduce_ex__")
    )
    own = hasattr(arguments, "__code__") or hasattr(kind, "__getnewargs_ex__")
    if own or not usual or not hasattr(new, "__code__"):
        return
    try:
        inspect.signature(new).bind(kind, *([None] if arguments is not None else []))
    except TypeError as error:
        raise UnsupportedTypeError(
            f"pickle could not call its __new__ again: {error}; give it a __getnewargs__"
        ) from error


def _names_of_script(stream: bytes) -> list[str]:
    """Return the classes and functions that a stream names in `__main__`."""
    names = []
    for match in _OF_SCRIPT.finditer(stream):
        start, length = match.end(), match[1][0]
        if stream[start + length : start + length + 2] == b"\x94\x93":
            names.append(stream[start : start + length].decode("utf-8", "replace"))
    return names


def _refusal(value: Any, error: Exception) -> str:
    kind = type(value)
    return (
        f"a {kind.__module__}.{kind.__qualname__} cannot be stored: it has no codec and pickle "
        f"refuses it ({error}). Store the data inside it instead, move its class to the top level "
        "of a module, or call memories.register_codec"
    )
