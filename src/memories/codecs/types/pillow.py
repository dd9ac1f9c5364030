"""Codecs of Pillow images: mode, size, palette, the dict `info`, and the pixels as they lie.

An image that was opened from a file becomes a plain image of its present frame, as `copy()` makes
it. What Pillow trusts, and is checked here: that the pixels are as many as mode and size say, and
that a size needs no more memory than its pixels, for it allocates a pointer for each row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from memories.codecs.allowance import spend
from memories.codecs.arrays import expect_array
from memories.codecs.base import Parts
from memories.codecs.expect import expect, expect_dict, expect_fields
from memories.codecs.nested import StructureCodec
from memories.codecs.pickled import PickleCodec
from memories.codecs.registry import add, add_base
from memories.errors import CorruptDataError
from memories.foundation.optional_imports import package

# Bytes of a pixel as `tobytes` writes it; "1" has eight pixels in a byte.
_PIXEL_NBYTES: Final = {
    "1": 0, "L": 1, "P": 1, "LA": 2, "La": 2, "PA": 2,
    "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2,
    "RGB": 3, "YCbCr": 3, "HSV": 3, "LAB": 3,
    "RGBA": 4, "RGBX": 4, "RGBa": 4, "CMYK": 4, "I": 4, "F": 4,
}  # fmt: skip
_PALETTES: Final = ("RGB", "RGBA", "CMYK")
_ROW_NBYTES = 16  # The pointers of a row.


class ImageCodec(StructureCodec):
    """Images of every mode that Pillow documents; one of another mode is pickled."""

    def encode(self, value: Any) -> Parts:
        """Load the image, and list its pixels."""
        value.load()
        return super().encode(value) if value.mode in _PIXEL_NBYTES else PickleCodec().encode(value)


def _apart(value: Any) -> Any:
    palette = None
    if value.mode in ("P", "PA"):
        mode = value.im.getpalettemode()
        palette = [mode, bytes(value.im.getpalette(mode, mode))]
    return {
        "mode": value.mode,
        "size": list(value.size),
        "palette": palette,
        "info": dict(value.info),
        "pixels": np.frombuffer(value.tobytes(), np.uint8),
    }


def _together(structure: Any) -> Any:
    expect_dict(structure, ("mode", "size", "palette", "info", "pixels"), "an image")
    mode = expect(structure["mode"], str, "the mode of an image")
    width, height = expect_fields(structure["size"], 2, "the size of an image")
    if min(expect(width, int, "a size"), expect(height, int, "a size")) < 0:
        raise CorruptDataError("a stored image has a negative size")
    if mode not in _PIXEL_NBYTES:
        raise CorruptDataError(f"no image has the mode {mode[:20]!r}")
    pixels = expect_array(structure["pixels"], "u")
    row = width * _PIXEL_NBYTES[mode] if mode != "1" else -(-width // 8)
    if pixels.dtype != np.uint8 or len(pixels) != row * height:
        raise CorruptDataError(f"an image of {width} x {height} pixels is stored as {len(pixels)}")
    spend(_ROW_NBYTES * height + 4 * width * height, "an image")
    library, size = package("PIL.Image"), (width, height)
    # Pillow 10 fills no image without pixels.
    value = library.frombytes(mode, size, pixels) if len(pixels) else library.new(mode, size)
    if structure["palette"] is not None:
        kind, colours = expect_fields(structure["palette"], 2, "a palette")
        if mode not in ("P", "PA") or kind not in _PALETTES:
            raise CorruptDataError("a stored image has a palette of another kind")
        if len(expect(colours, bytes, "a palette")) > 256 * len(kind):
            raise CorruptDataError("a stored palette has more than 256 colours")
        value.putpalette(colours, kind)
    value.info = expect(structure["info"], dict, "what is known of an image")
    return value


def _text_together(structure: Any) -> Any:
    text, language, key = expect_fields(structure, 3, "a text of an image")
    for part in (text, language, key):
        if part is not None:
            expect(part, str, "a text of an image")
    return package("PIL.PngImagePlugin").iTXt(text, language, key)


def _fraction_together(structure: Any) -> Any:
    numerator, denominator = expect_fields(structure, 2, "a fraction")
    expect(numerator, int, "a fraction"), expect(denominator, int, "a fraction")
    return package("PIL.TiffImagePlugin").IFDRational(numerator, denominator)


def register() -> None:
    """Register the codecs of Pillow."""
    image = package("PIL.Image").Image
    text = package("PIL.PngImagePlugin").iTXt
    fraction = package("PIL.TiffImagePlugin").IFDRational
    add_base(ImageCodec("PIL.image", _apart, _together), image)
    rows: tuple[tuple[str, Callable[[Any], Any], Callable[[Any], Any], Any], ...] = (
        ("text", lambda v: [str(v), v.lang, v.tkey], _text_together, text),
        ("fraction", lambda v: [v.numerator, v.denominator], _fraction_together, fraction),
    )
    for name, apart, together, kind in rows:
        add(StructureCodec(f"PIL.{name}", apart, together), kind)
