"""Choose how to compress a buffer, by samples of it; compress and decompress its chunks.

Samples from the start, the middle and the end of a buffer are compressed in several ways. The best
one is used if it saves enough; else the buffer is stored raw.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

from memories.codecs.buffers import ByteArray, as_array
from memories.errors import CorruptDataError, InvalidOptionError
from memories.foundation.optional_imports import Library, require, require_library
from memories.frames import pco_chunks
from memories.frames.delta_filter import HEADER_NBYTES, MAX_DISTANCE, Delta, candidates, unpack

RAW, BLOSC, DELTA, PCODEC = 0, 1, 2, 3
_HEADER = struct.Struct("<BBBBIII")  # The header of every Blosc chunk.
_unpack_header = _HEADER.unpack_from
# A chunk of one block of LZ4 without a shuffle: the header, where the block starts, its length.
_pack_plain = struct.Struct("<BBBBIIIII").pack
_unpack_block = struct.Struct("<II").unpack_from
_PLAIN_LZ4, _START, _PLAIN = 0x20, 20, 24
_SIZE_NBYTES = 4  # `numcodecs.lz4` puts the size before a block.
_SAMPLE = 1 << 16
_SAMPLES = 3
MIN_NBYTES = 512
_SMALL_NBYTES = 8192
_MAX_NBYTES = 1 << 40  # Chunks of a larger buffer exceed the limit of Blosc.
_MIN_GAIN = 1.2
_MIN_GAIN_HIGH = 1.05
_SURE_GAIN = 2.0  # What becomes so much smaller is compressed, however long that takes.
_BLOCKS = {"zstd": 1 << 20}  # Longer blocks than Blosc's own choice pay for zstd, in time too.
_NAMED_GAIN = 1.02
_HIGH_LEVEL = 6
_HIGH_LEVEL_GAIN = 1.03  # The highest level takes four times as long as that of the trials.
_NUMBERS_GAIN = 1.05  # A frame of pcodec needs pcodec to be read.
# The first two find repetitions, and bits of eight bytes that hardly change. A sample that neither
# of them makes smaller is noise, and the other shuffles are not tried.
_SIGNS = ((0, 1), (2, 8))
_SHUFFLES = ((1, 2), (1, 4), (1, 8), (2, 2), (2, 4))
_LEVELS = {"lz4": 5, "lz4hc": 9, "zstd": 3, "blosclz": 5, "zlib": 5}


class Method(NamedTuple):
    """How to compress one buffer."""

    name: str
    level: int
    shuffle: int = 0  # 0 none, 1 bytes, 2 bits.
    itemsize: int = 1
    delta: Delta | None = None
    numbers: pco_chunks.Numbers | None = None  # For pcodec, which has no shuffle.

    @property
    def code(self) -> int:
        """Return its code in a frame."""
        if self.numbers is not None:
            return PCODEC
        return BLOSC if self.delta is None else DELTA


class Spec(NamedTuple):
    """A requested compressor, and the gain below which a buffer is stored raw."""

    name: str
    level: int
    min_gain: float
    differences: bool = False  # Whether to look for a filter at length.
    weighs: bool = False  # Whether the time that it takes counts, too.


@functools.cache
def parse_spec(spec: str) -> Spec | None:
    """Return the parsed `spec`, None for `"none"`.

    `"fast"` is lz4, `"high"` zstd, over differences where those are smaller; both leave a value raw
    if they save little. `"auto"` is `"fast"`, but saves less than half only where the medium
    would take longer to write what is saved. A compressor by name (`"zstd:5"`, `"lz4"`,
    `"blosc-lz4hc:9"`) is used if it saves anything at all.

    Raises:
        InvalidOptionError: the compressor or level is unknown.
    """
    if spec == "none":
        return None
    if spec in ("auto", "fast"):
        return Spec("lz4", 5, _MIN_GAIN, weighs=spec == "auto")
    if spec == "high":
        return Spec("zstd", _HIGH_LEVEL, _MIN_GAIN_HIGH, differences=True)
    name, _, level = spec.removeprefix("blosc-").partition(":")
    if name not in _LEVELS or not (level == "" or level in set("123456789")):
        raise InvalidOptionError(
            f"compression {spec!r} is unknown: use 'none', 'auto', 'fast', 'high', or one of "
            f"{', '.join(sorted(_LEVELS))} with a level from 1 to 9, like 'zstd:5'"
        )
    return Spec(name, int(level) if level else _LEVELS[name], _NAMED_GAIN)


# Returns whether it is worth to save so many bytes, if that takes so many seconds.
Weigh = Callable[[int, float], bool]


def choose_method(
    buffer: memoryview,
    spec: Spec | None,
    distances: Sequence[int] = (),
    weigh: Weigh | None = None,
    numbers: str = "",
) -> Method | None:
    """Return how to compress `buffer`, or None where raw is better.

    It takes about 3 ms at most, for a buffer of any size; for `"high"` about 50 ms. `distances` are
    the strides of the array in the buffer, in bytes, that of neighbours first, if they are known,
    and `numbers` what the array consists of, for pcodec. `weigh` decides for a spec that weighs
    time.
    """
    if spec is None or not MIN_NBYTES <= buffer.nbytes <= _MAX_NBYTES:
        return None
    sample = _sample(buffer)
    # The best shuffle hardly depends on the compressor, so a fast one is used for the trials.
    trial = "lz4" if spec.name in ("lz4", "blosclz") else spec.name
    level = 1 if trial == "lz4" else min(spec.level, 3)
    nbytes = sum([piece.body.nbytes for piece in sample])
    found = _trials(sample, Method(trial, level), _SIGNS, None)
    if min(size for size, _ in found) < nbytes:
        found += _trials(sample, Method(trial, level), _SHUFFLES, None)
    if spec.differences and distances:
        for delta in candidates(distances):
            shuffles = ((0, 1), (1, delta.itemsize), (2, delta.itemsize))
            found += _trials(sample, Method(trial, level), shuffles, delta)
    size, best = min(found, key=lambda one: one[0])
    if spec.differences and numbers and pco_chunks.is_installed():
        smaller, ours = _smallest_numbers(sample, numbers, tuple(distances))
        if smaller * _NUMBERS_GAIN <= size and nbytes >= spec.min_gain * smaller:
            return ours
    if nbytes < spec.min_gain * max(1, size):
        return None
    if spec.differences:
        shuffle = (best.shuffle, best.itemsize)
        ((smaller, _),) = _trials(sample, Method(trial, spec.level), [shuffle], best.delta)
        if smaller * _HIGH_LEVEL_GAIN > size:
            return best
    best = best._replace(name=spec.name, level=spec.level)
    unsure = spec.weighs and nbytes < _SURE_GAIN * size
    if weigh is not None and unsure and not weigh(*_measured(sample, best)):
        return None
    return best


def compress(chunk: memoryview | ByteArray, method: Method) -> bytes:
    """Return `chunk` compressed."""
    if method.numbers is not None:
        return pco_chunks.pack(chunk, method.numbers)
    if method.delta is not None:
        body = method.delta.apply(chunk)
        return method.delta.pack() + compress(body, method._replace(delta=None))
    if chunk.nbytes <= _SMALL_NBYTES and isinstance(chunk, memoryview):
        return compress_small(bytes(chunk), method)
    packed = np.empty(chunk.nbytes + _HEADER.size, np.uint8)
    return packed[: _pack(method, _place(chunk), _place(packed))].tobytes()


def compress_small(source: bytes, method: Method) -> bytes:
    """Return some bytes compressed, without differences; small ones, since it keeps the lock."""
    nbytes = len(source)
    if method.name == "lz4" and not method.shuffle and nbytes >= MIN_NBYTES:
        # What Blosc would make, in a third of the time.
        block: bytes = _lz4().compress(source, 10 - method.level)
        size = len(block) - _SIZE_NBYTES
        if size < nbytes:
            front = _pack_plain(2, 1, _PLAIN_LZ4, 1, nbytes, nbytes, _PLAIN + size, _START, size)
            return front + block[_SIZE_NBYTES:]
    # Written into by C before anything else can refer to it. It is longer than one byte: those of
    # fewer are shared by the whole interpreter.
    packed = bytes(nbytes + _HEADER.size)
    length: int = _blosc_small().blosc_compress_ctx(
        method.level,
        method.shuffle,
        method.itemsize,
        nbytes,
        source,
        packed,
        nbytes + _HEADER.size,
        method.name.encode(),
        _BLOCKS.get(method.name, 0),
        1,
    )
    if length <= 0:
        raise _failed(method, nbytes, length)
    return packed[:length]


def _failed(method: Method, nbytes: int, code: int) -> RuntimeError:
    return RuntimeError(f"{method.name} cannot compress {nbytes} bytes: error {code}")


class _Place(NamedTuple):
    """Address and size of memory for a C function; the caller keeps the memory alive."""

    address: int
    nbytes: int


def _place(memory: memoryview | ByteArray) -> _Place:
    whole = as_array(memory) if isinstance(memory, memoryview) else memory
    return _Place(whole.ctypes.data, whole.nbytes)


def _pack(method: Method, source: _Place, target: _Place) -> int:
    """Compress `source` into `target`, and return the compressed length."""
    length: int = _blosc().blosc_compress_ctx(
        method.level,
        method.shuffle,
        method.itemsize,
        source.nbytes,
        source.address,
        target.address,
        target.nbytes,
        method.name.encode(),
        _BLOCKS.get(method.name, 0),
        1,
    )
    if length <= 0:
        raise _failed(method, source.nbytes, length)
    return length


def decompress_small(source: bytes, nbytes: int) -> bytes | None:
    """Return a small Blosc chunk decompressed; None if it is larger, or damaged."""
    if not 1 < nbytes <= _SMALL_NBYTES or len(source) < _HEADER.size:
        return None
    front = plain_front(nbytes, len(source))
    if front is not None and source.startswith(front):  # What `compress_small` makes of most.
        return _decompress_block(source, nbytes)
    _, _, flags, _, raw, block, stored = _unpack_header(source)
    if raw != nbytes or stored != len(source):
        return None
    if flags == _PLAIN_LZ4 and block == nbytes and stored > _PLAIN:
        start, length = _unpack_block(source, _HEADER.size)
        if start == _START and length == stored - _PLAIN and length < nbytes:
            return _decompress_block(source, nbytes)
    plain = bytes(nbytes)  # As in `compress_small`.
    length = _blosc_small().blosc_decompress_ctx(source, plain, nbytes, 1)
    return plain if length == nbytes else None


def plain_front(nbytes: int, total: int) -> bytes | None:
    """Return how a chunk of one block of LZ4 begins that has `total` bytes; None if none has."""
    size = total - _PLAIN
    if not (1 < nbytes <= _SMALL_NBYTES and 0 < size < nbytes):
        return None
    return _pack_plain(2, 1, _PLAIN_LZ4, 1, nbytes, nbytes, total, _START, size)


def block_decompressor() -> Callable[[bytes], bytes]:
    """Return the function that decompresses a block of LZ4 with its decompressed size before it.

    It raises RuntimeError or ValueError for a damaged one.
    """
    decompress: Callable[[bytes], bytes] = _lz4().decompress
    return decompress


def _decompress_block(source: bytes, nbytes: int) -> bytes | None:
    """Return the one block of a chunk decompressed; None if it is damaged."""
    try:
        plain: bytes = _lz4().decompress(nbytes.to_bytes(4, "little") + source[_PLAIN:])
    except (RuntimeError, ValueError):
        return None
    return plain if len(plain) == nbytes else None


def check_chunk(chunk: memoryview, nbytes: int, code: int = BLOSC) -> None:
    """Check that the header of a chunk declares `nbytes`, before anything is allocated.

    Raises:
        CorruptDataError: the header declares another size, or is damaged.
    """
    if code == PCODEC:
        pco_chunks.check(chunk)  # It has no size of its own before it is decompressed.
        return
    if code == DELTA:
        unpack(chunk)
        chunk = chunk[HEADER_NBYTES:]
    if chunk.nbytes < _HEADER.size:
        raise CorruptDataError(f"a compressed chunk of {chunk.nbytes} bytes is too short")
    _, _, _, _, raw, _, stored = _HEADER.unpack_from(chunk)
    if raw != nbytes or stored != chunk.nbytes:
        raise CorruptDataError(
            f"a compressed chunk claims {raw} bytes in {stored}, its frame says "
            f"{nbytes} in {chunk.nbytes}"
        )


def decompress(chunk: memoryview, target: ByteArray, code: int = BLOSC) -> None:
    """Fill `target` with the decompressed `chunk`, which must have its size.

    Raises:
        CorruptDataError: the chunk is damaged or of another size.
    """
    if code == PCODEC:
        pco_chunks.unpack(chunk, target)
        return
    if code == DELTA:
        delta = unpack(chunk)
        decompress(chunk[HEADER_NBYTES:], target)
        delta.undo(target)
        return
    check_chunk(chunk, target.nbytes)
    source, place = _place(chunk), _place(target)
    length = _blosc().blosc_decompress_ctx(source.address, place.address, place.nbytes, 1)
    if length != place.nbytes:
        raise CorruptDataError("a compressed chunk cannot be decompressed")


class _Piece(NamedTuple):
    """A part of a buffer, and the bytes before it."""

    body: memoryview
    lead: memoryview


def _trials(
    sample: list[_Piece], method: Method, shuffles: Sequence[tuple[int, int]], delta: Delta | None
) -> list[tuple[int, Method]]:
    """Return the compressed size of the sample for each shuffle, with the method."""
    bodies = [piece.body if delta is None else _differences(piece, delta) for piece in sample]
    packed = np.empty(max(body.nbytes for body in bodies) + _HEADER.size, np.uint8)
    target, places = _place(packed), [_place(body) for body in bodies]
    found = []
    for shuffle, itemsize in shuffles:
        one = Method(method.name, method.level, shuffle, itemsize)
        size = sum([_pack(one, place, target) for place in places])
        found.append((size, one if delta is None else one._replace(delta=delta)))
    return found


def _smallest_numbers(
    sample: list[_Piece], kind: str, distances: tuple[int, ...]
) -> tuple[int, Method]:
    """Return the size of the sample as pcodec makes it smallest, with the method."""
    bodies, found = [piece.body for piece in sample], []
    for numbers in pco_chunks.candidates(kind, distances):
        method = Method("pcodec", _HIGH_LEVEL, numbers=numbers)
        if numbers.delta is None:
            size = sum([len(pco_chunks.pack(body, numbers)) for body in bodies])
        else:
            plain = numbers._replace(kind=f"i{numbers.kind[1:]}", step=0)
            filtered = [_differences(piece, numbers.delta) for piece in sample]
            size = sum([len(pco_chunks.pack(body, plain)) for body in filtered])
        found.append((size, method))
    return min(found, key=lambda one: one[0])


def _measured(sample: list[_Piece], method: Method) -> tuple[int, float]:
    """Return the bytes that a method saves of the sample, and the seconds that it takes."""
    places = [_place(piece.body) for piece in sample]
    packed = np.empty(max(place.nbytes for place in places) + _HEADER.size, np.uint8)
    target, started = _place(packed), time.thread_time()
    size = sum([_pack(method, place, target) for place in places])
    return sum(place.nbytes for place in places) - size, time.thread_time() - started


def _differences(piece: _Piece, delta: Delta) -> ByteArray:
    """Return the differences of the piece, computed with the items before it."""
    reach = delta.itemsize * delta.step
    lead = piece.lead[max(0, piece.lead.nbytes - reach) :]
    joined = np.concatenate([as_array(lead), as_array(piece.body)]) if lead.nbytes else piece.body
    return delta.apply(joined)[lead.nbytes :]


def _sample(buffer: memoryview) -> list[_Piece]:
    if buffer.nbytes <= _SAMPLE * _SAMPLES:
        return [_Piece(buffer, buffer[:0])]
    # Multiples of 64 keep whole items together for every item size that a shuffle knows.
    last = (buffer.nbytes - _SAMPLE) // 64
    starts = [last * i // (_SAMPLES - 1) * 64 for i in range(_SAMPLES)]
    return [
        _Piece(buffer[start : start + _SAMPLE], buffer[max(0, start - MAX_DISTANCE) : start])
        for start in starts
    ]


@functools.cache
def _lz4() -> ModuleType:
    """Return LZ4 in `numcodecs`, which takes no lock and starts no thread."""
    return require("numcodecs.lz4", extra="all")


@functools.cache
def _blosc() -> ctypes.CDLL:
    """Return the C library in `numcodecs`, for its functions that need no lock.

    The Python functions of `numcodecs` take a lock, which a signal in the main thread can leave
    locked for ever, and use threads, which a forked child does not have.
    """
    return _declared(require_library("numcodecs.blosc", ctypes.CDLL, extra="all"))


@functools.cache
def _blosc_small() -> ctypes.PyDLL:
    """Return the same library for calls that take microseconds: they keep the interpreter's lock.

    To release it, and wait for it again, would take longer where other threads run.
    """
    return _declared(require_library("numcodecs.blosc", ctypes.PyDLL, extra="all"))


def _declared(library: Library) -> Library:
    """Return `library` with the types of the functions that are called."""
    number, size, place = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
    library.blosc_compress_ctx.argtypes = [
        number, number, size, size, place, place, size, ctypes.c_char_p, size, number,
    ]  # fmt: skip
    library.blosc_decompress_ctx.argtypes = [place, place, size, number]
    return library
