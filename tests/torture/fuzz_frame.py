"""Coverage-guided fuzzing of the decoder: any bytes give a value or an error of ours.

    python tests/torture/fuzz_frame.py CORPUS_DIRECTORY -max_total_time=600 -rss_limit_mb=2000

Needs `atheris`. An input is a frame, or the parts that a frame would hold. The head's checksum is
mended in every frame, and the body's are not asked, for an adversary can compute checksums too and
a fuzzer would never get past them.
"""

from __future__ import annotations

import importlib
import os
import pickle
import pkgutil
import random
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import atheris
import msgspec

os.environ["RUST_BACKTRACE"] = "0"  # polars panics at damage; to tell where takes a second.
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["memories.codecs"]):
    import memories.codecs

    # All of them now: a family that is imported later, when a name first needs it, is not watched.
    for module in pkgutil.iter_modules(memories.codecs.__path__):
        importlib.import_module(f"memories.codecs.{module.name}")

from tests.unit.codecs.test_hostile import damage  # noqa: E402

from memories import codecs  # noqa: E402
from memories.codecs.base import Parts  # noqa: E402
from memories.errors import MemoriesError  # noqa: E402
from memories.frames import head  # noqa: E402
from memories.frames.reader import open_frame  # noqa: E402
from memories.frames.signing import Keyring  # noqa: E402

GOLDEN = ROOT / "tests" / "format" / "golden"
RING = Keyring(Path(tempfile.mkdtemp()) / "keys")
FRAME, PARTS = b"\0", b"\1"  # The first byte of an input.
MAX_SECONDS = 10


def refuse(*_: object, **__: object) -> None:
    """Stand in for unpickling: that it is reached at all is the bug."""
    raise AssertionError("an unsigned pickle was loaded")


def mend(data: bytes) -> bytes:
    """Return `data` with the mark, the lengths and the checksum of a head that is whole."""
    frame_bytes = bytearray(data + bytes(-len(data) % 64))
    nbytes = min(struct.unpack_from("<I", frame_bytes, 12)[0] // 64 * 64, len(frame_bytes))
    nbytes = max(64, min(nbytes, head.MAX_HEAD))
    packed = min(struct.unpack_from("<I", frame_bytes, 24)[0], nbytes - head.PREFIX_NBYTES)
    struct.pack_into(
        "<8sHHIQII", frame_bytes, 0, head.MAGIC, head.FORMAT, 0, nbytes,
        len(frame_bytes) - nbytes, packed, 0,
    )  # fmt: skip
    struct.pack_into("<Q", frame_bytes, 32, head._head_sum(memoryview(frame_bytes)[:nbytes]))
    return bytes(frame_bytes)


def read_frame(data: bytes) -> None:
    """Read a frame as the library would, in every way there is."""
    opened = open_frame(data)
    if opened.codec == "ndarray":
        opened.region(...)
    read_parts(opened.parts(verify=False, verifier=RING))


def read_parts(parts: Parts) -> None:
    """Put a value together, for a reader and for a tier."""
    codecs.size_of(codecs.decode(parts))
    codecs.own_parts(parts)


def pack_parts(parts: Parts) -> bytes:
    """Return the input that stands for these parts."""
    return PARTS + msgspec.msgpack.encode(
        [parts.codec, parts.meta, [bytes(buffer) for buffer in parts.buffers]]
    )


def unpack_parts(data: bytes) -> Parts | None:
    """Return the parts that an input stands for, or None if it stands for none."""
    try:
        codec, meta, buffers = msgspec.msgpack.decode(data[1:], type=tuple[str, Any, list[bytes]])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    if codecs.carries_code(codec):
        return None  # A frame of it is verified before anything is decoded.
    return Parts(codec, meta, tuple(map(memoryview, buffers)))


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change parts where they mean something, three times out of four."""
    parts = unpack_parts(data) if data[:1] == PARTS else None
    if parts is not None and seed % 4:
        try:
            return pack_parts(damage(parts, random.Random(seed)))[:max_size]
        except (msgspec.MsgspecError, OverflowError, TypeError):
            return data
    return bytes(atheris.Mutate(data, max_size))


def test_one_input(data: bytes) -> None:
    """Read the input as it is, and a frame as an adversary would finish it."""
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in readings(data):
            try:
                read()
            except MemoriesError:
                continue
    assert time.process_time() - started < MAX_SECONDS, "that took too long"


def readings(data: bytes) -> list[Any]:
    """Return what is to be tried with an input."""
    if data[:1] == PARTS:
        parts = unpack_parts(data)
        return [] if parts is None else [lambda: read_parts(parts)]
    found = [lambda: read_frame(data[1:])]
    if len(data) > head.PREFIX_NBYTES:
        found.append(lambda: read_frame(mend(data[1:])))
    return found


def seeds(folder: Path) -> None:
    """Write what the golden frames hold as inputs, as frames and as parts."""
    for path in GOLDEN.rglob("*.frame"):
        data = path.read_bytes()
        (folder / f"frame-{path.name}").write_bytes(FRAME + data)
        opened = open_frame(data)
        if not codecs.carries_code(opened.codec):
            (folder / f"parts-{path.name}").write_bytes(pack_parts(opened.parts()))


def main() -> None:
    """Fuzz, starting from the golden frames; without a corpus directory there is nothing to do."""
    pickle.loads = refuse  # type: ignore[assignment]
    folder = Path(tempfile.mkdtemp())
    seeds(folder)
    arguments = [*sys.argv, str(folder)] if len(sys.argv) > 1 else sys.argv
    atheris.Setup(arguments, test_one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
