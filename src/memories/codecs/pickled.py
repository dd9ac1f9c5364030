"""The codec of all types without one of their own: pickle 5 with out-of-band buffers.

Unpickling can run code, so a frame with a pickle is read only if a trusted key has signed it.
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
# A reference to a class of the script in a pickle: the module, memoized, then the length of the
# name.
_OF_SCRIPT = re.compile(rb"\x8c(?:\x08__main__|\x0b__mp_main__)\x94\x8c(.)", re.DOTALL)


class PickleCodec(Codec):
    """Any object that pickle accepts; others are refused by `encode`."""

    name = PICKLE

    def encode(self, value: Any) -> Parts:
        """Pickle `value`; its large buffers are not copied."""
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
        """Unpickle; the caller has checked that a trusted key has signed the stream.

        Buffers that were writable are copied, so that the object stays writable.

        Raises:
            UnsupportedTypeError: a class does not exist, or cannot read its own earlier state.
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
        except Exception as error:  # The signed stream is intact, so the code has changed.
            raise UnsupportedTypeError(
                f"the present code of the class of a stored object cannot restore it: "
                f"{type(error).__name__}: {error}"
            ) from error


class _Reducers(dict[type, Callable[[Any], Any]]):
    """The reducer of each class, as pickle has it, but with one of ours for exceptions.

    It is asked once for each class in a stream.
    """

    def __missing__(self, kind: type) -> Callable[[Any], Any]:
        found = copyreg.dispatch_table.get(kind)
        if found is not None and issubclass(kind, BaseException) and _is_of_tblib(found):
            found = None
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
    """Finds classes; the error for a missing one names it."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what `module` calls `name`, importing the module."""
        try:
            return super().find_class(module, name)
        except (MemoriesError, MemoryError):
            raise
        except Exception as error:  # Importing runs whatever code the module has.
            raise UnsupportedTypeError(main_classes.explain_missing(module, name, error)) from error


def _is_of_tblib(reducer: Any) -> bool:
    """Return whether tblib made this reducer, which it does for all exceptions there are.

    dask imports it. It would keep tracebacks, and lose what is in slots and what refers to itself.
    """
    return str(getattr(reducer, "__module__", "")).partition(".")[0] == "tblib"


def _dumps(value: Any, callback: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    sink = io.BytesIO()
    pickler = pickle.Pickler(sink, 5, buffer_callback=callback)
    pickler.dispatch_table = _Reducers()
    pickler.dump(value)
    return sink.getvalue()


def _loads(stream: memoryview | bytes, buffers: Iterable[Any]) -> Any:
    return _Unpickler(io.BytesIO(stream), buffers=buffers).load()


def _require_makeable(kind: type) -> None:
    """Refuse a class whose instances pickle can store, but not restore.

    Pickle calls `__new__` with what `__getnewargs__` returns: nothing, or the one value of a
    builtin. If `__new__` needs more arguments, reading would fail. Nothing of the class is run to
    find out.
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
    name = f"{kind.__module__}.{kind.__qualname__}"
    if hasattr(kind, "__arrow_c_stream__"):
        return (
            f"a {name} cannot be stored: it exports a stream of Arrow, which may be there only "
            "once: read it first and store pyarrow.table(value)"
        )
    return (
        f"a {name} cannot be stored: it has no codec and pickle "
        f"refuses it ({error}): store the data inside it instead, move its class to the top level "
        "of a module, or call memories.register_codec"
    )
