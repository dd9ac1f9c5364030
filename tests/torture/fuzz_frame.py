"""Coverage-guided fuzzing of the frame decoder: any bytes give a value or an error of ours.

    python tests/torture/fuzz_frame.py CORPUS_DIRECTORY -max_total_time=600 -rss_limit_mb=1500

Needs `atheris`. The head's checksum is mended in every input, and the body's are not asked, for an
adversary can compute checksums too and a fuzzer would never get past them.
"""

from __future__ import annotations

import pickle
import struct
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["memories.codecs", "msgspec"]):
    from memories import codecs
    from memories.codecs import frame, layout
    from memories.codecs.trust import Keyring
    from memories.errors import MemoriesError

GOLDEN = Path(__file__).resolve().parent.parent / "format" / "golden"
RING = Keyring(Path(tempfile.mkdtemp()) / "keys")


def refuse(*_: object, **__: object) -> None:
    """Stand in for unpickling: that it is reached at all is the bug."""
    raise AssertionError("an unsigned pickle was loaded")


def mend(data: bytes) -> bytes:
    """Return `data` with the mark, the lengths and the checksum of a head that is whole."""
    frame_bytes = bytearray(data + bytes(-len(data) % 64))
    nbytes = min(struct.unpack_from("<I", frame_bytes, 12)[0] // 64 * 64, len(frame_bytes))
    nbytes = max(64, min(nbytes, layout.MAX_HEAD))
    packed = min(struct.unpack_from("<I", frame_bytes, 24)[0], nbytes - layout.PREFIX_NBYTES)
    struct.pack_into(
        "<8sHHIQII", frame_bytes, 0, layout.MAGIC, layout.FORMAT, 0, nbytes,
        len(frame_bytes) - nbytes, packed, 0,
    )  # fmt: skip
    struct.pack_into("<Q", frame_bytes, 32, layout._head_sum(memoryview(frame_bytes)[:nbytes]))
    return bytes(frame_bytes)


def read(data: bytes) -> None:
    """Read a frame as the library would, in every way there is."""
    try:
        opened = frame.open_frame(data)
        value = codecs.decode(opened.parts(verify=False, verifier=RING))
        codecs.size_of(value)
        if opened.codec == "ndarray":
            opened.region(...)
    except MemoriesError:
        return


def test_one_input(data: bytes) -> None:
    """Read the input as it is, and as an adversary would finish it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read(data)
        if len(data) >= layout.PREFIX_NBYTES:
            read(mend(data))


def main() -> None:
    """Fuzz, starting from the golden frames."""
    pickle.loads = refuse  # type: ignore[assignment]
    arguments = [*sys.argv, *(str(path) for path in GOLDEN.iterdir() if len(sys.argv) > 1)]
    atheris.Setup(arguments, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
