"""The tables of codecs, by type and by name.

An exact type has one codec. The codecs of optional packages are loaded when a value, or a name in a
frame, first needs them.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any

from memories.codecs.base import PICKLE, SIGNED, Codec, Parts
from memories.errors import CorruptDataError, MemoriesError
from memories.errors import UnsupportedTypeError as Unsupported

# The top package of a type, and the module with the codecs for it. The first part of a codec's
# name is such a package too, so a frame leads to the module that can read it.
FAMILIES = {
    "numpy": "types.numpy_special",
    "ml_dtypes": "types.numpy_special",
    "pandas": "types.pandas",
    "polars": "types.polars",
    "pyarrow": "types.arrow",
    "xarray": "types.xarray",
    "scipy": "types.scipy_sparse",
    "torch": "types.torch",
    "jax": "types.jax",
    "jaxlib": "types.jax",
    "cupy": "types.cupy",
    "sparse": "types.pydata_sparse",
    "shapely": "types.shapely",
    "pyproj": "types.pyproj",
    "geopandas": "types.geopandas",
    "affine": "types.affine",
    "rasterio": "types.rasterio",
    "PIL": "types.pillow",
    "arro3": "types.arro3",
    "nanoarrow": "types.nanoarrow",
    "duckdb": "types.duckdb",
    "_duckdb": "types.duckdb",
}
ENTRY_POINTS = "memories.codecs"

_by_type: dict[type, Codec] = {}
_by_base: dict[type, Codec] = {}
_by_name: dict[str, Codec] = {}
_by_place: dict[tuple[str, str], Codec] = {}  # By the module and the name of a type.
loaded = _by_name.get  # The codec of a name if it is loaded, for the fastest read, else None.
_loaded: set[str] = set()
_lock = threading.RLock()


def add(codec: Codec, *kinds: type) -> None:
    """Register `codec` for these exact types, and for frames with its name."""
    with _lock:
        _by_name[codec.name] = codec
        for kind in kinds:
            _by_type[kind] = codec


def add_at(codec: Codec, module: str, name: str) -> None:
    """Register `codec` for the type of this name in a module that need not be imported yet."""
    with _lock:
        _by_name[codec.name] = codec
        _by_place[module, name] = codec


def add_base(codec: Codec, base: type) -> None:
    """Register `codec` for `base` and all subclasses that its own package will ever define."""
    add(codec, base)
    _by_base[base] = codec


def codec_for(value: Any) -> Codec:
    """Return the codec for `value`; whether it can encode all its content shows in `encode`."""
    kind = type(value)
    codec = _by_type.get(kind)
    return codec if codec is not None else _search(kind)


def codec_named(name: str) -> Codec:
    """Return the codec for frames with this name.

    Raises:
        UnsupportedTypeError: no codec of that name is known here.
    """
    base = name.removesuffix(SIGNED)
    codec = _by_name.get(base)
    if codec is None:
        load_builtin()
        _load_family(base.partition(".")[0])
        if base not in _by_name:
            _load_entry_points()
        codec = _by_name.get(base)
    if codec is None:
        raise Unsupported(
            f"no codec is named {base[:80]!r} here: import the package that registers it, or call "
            "memories.register_codec before reading this value"
        )
    return codec


def encode(value: Any) -> Parts:
    """Return the parts of `value`; memory is copied only from devices.

    Raises:
        UnsupportedTypeError: the value, or something inside of it, cannot be stored.
    """
    codec = _by_type.get(type(value))
    parts = (_search(type(value)) if codec is None else codec).encode(value)
    if not parts.far:
        return parts
    from memories.codecs.buffers import fetch

    return fetch(parts)


def encode_in_place(value: Any) -> Parts:
    """Return the parts of `value`; buffers on a device stay there."""
    return codec_for(value).encode(value)


def decode(parts: Parts, *, writable: bool = False) -> Any:
    """Return the value of `parts`; with `writable` from private copies of the buffers.

    Raises:
        CorruptDataError: the parts are damaged.
        UnsupportedTypeError: they name a type or a codec that is unknown here.
    """
    from memories.codecs.buffers import own_buffer, thaw

    codec = codec_named(parts.codec)
    if codec.private and not writable and not parts.far:
        own = [own_buffer(parts, index) for index in range(len(parts.buffers))]
        parts, writable = parts._replace(buffers=tuple(own)), True
    if writable and any(buffer.readonly for buffer in parts.buffers):
        parts = thaw(parts)
    return as_corrupt(parts.codec, lambda: codec.decode(parts, writable=writable))


def damaged(name: str, error: Exception) -> CorruptDataError:
    """Return the error for parts with which the codec `name` failed."""
    return CorruptDataError(f"a stored {name} cannot be put together again: {error}")


def as_corrupt(name: str, build: Callable[[], Any]) -> Any:
    """Return `build()`, and raise any error of damaged parts as CorruptDataError.

    Raises:
        CorruptDataError: it failed with an error that is not one of this package.
    """
    try:
        return build()
    except (MemoriesError, MemoryError):
        raise
    except Exception as error:  # Damaged parts can fail anywhere in NumPy, Arrow or pandas.
        raise damaged(name, error) from error


def _search(kind: type) -> Codec:
    load_builtin()
    for base in kind.__mro__[:-1]:
        _load_family(_package_of(base))
    for (module, name), found in list(_by_place.items()):
        if getattr(sys.modules.get(module), name, None) is kind:
            add(found, kind)
    if kind not in _by_type and not kind.__module__.startswith("memories."):
        _load_entry_points()
    codec = _by_type.get(kind)
    if codec is not None:
        return codec
    for base in kind.__mro__[1:-1]:
        codec = _by_base.get(base)
        if codec is not None and _package_of(kind) == _package_of(base):
            add(codec, kind)
            return codec
    return _by_name["tree" if _is_structure(kind) else PICKLE]


def _package_of(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _is_structure(kind: type) -> bool:
    import enum

    from memories.codecs import structures

    structural = issubclass(kind, enum.Enum) or structures.is_dataclass(kind)
    named = structural or (issubclass(kind, tuple) and structures.is_namedtuple(kind))
    return named and structures.name_of(kind) is not None


def load_builtin() -> None:
    """Load the codecs of Python's own types."""
    _load("builtin")


def _load_family(package: str) -> None:
    module = FAMILIES.get(package)
    if module is not None:
        _load(module)


def _load(module: str) -> None:
    if module in _loaded:
        return
    with _lock:
        if module not in _loaded:
            importlib.import_module(f"memories.codecs.{module}").register()
            _loaded.add(module)


def _load_entry_points() -> None:
    """Call every function of the entry point group once; each calls `register_codec`."""
    if ENTRY_POINTS in _loaded:
        return
    from importlib.metadata import entry_points

    with _lock:
        if ENTRY_POINTS in _loaded:
            return
        _loaded.add(ENTRY_POINTS)
        for point in entry_points(group=ENTRY_POINTS):
            point.load()()
