"""The codecs of Pillow images under `CodecTests`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memories import codecs
from memories.errors import CorruptDataError, MemoriesError
from memories.testing.codecs import CodecTests, identical, through_frame

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
from PIL import PngImagePlugin, TiffImagePlugin  # noqa: E402

MODES = (
    "1", "L", "P", "LA", "La", "PA", "I;16", "I;16L", "I;16B", "RGB", "YCbCr", "HSV", "LAB",
    "RGBA", "RGBX", "RGBa", "CMYK", "I", "F",
)  # fmt: skip
RNG = np.random.default_rng(5)


def image(mode: str, size: tuple[int, int] = (13, 7)) -> Any:
    """Return an image of random pixels."""
    nbytes = len(Image.new(mode, size).tobytes())
    if not nbytes:
        return Image.new(mode, size)
    return Image.frombytes(mode, size, RNG.integers(0, 256, nbytes, np.uint8).tobytes())


def with_palette(mode: str, kind: str, colours: int) -> Any:
    """Return an image whose pixels are indices."""
    made = image(mode)
    made.putpalette(RNG.integers(0, 256, colours * len(kind), np.uint8).tobytes(), kind)
    return made


def opened(form: str, mode: str, **options: Any) -> Any:
    """Return an image that lies in a file."""
    sink = io.BytesIO()
    image(mode).save(sink, form, **options)
    return Image.open(io.BytesIO(sink.getvalue()))


def texts() -> Any:
    """Return what a PNG may say in texts of several languages."""
    found = PngImagePlugin.PngInfo()
    found.add_itxt("XML:com.adobe.xmp", "<x/>", "en", "key")
    found.add_text("Comment", "plain")
    return found


def plain(value: Any) -> Any:
    """Return what an image comes back as."""
    if type(value) is Image.Image:
        return value
    made = value.copy()
    made.info = dict(value.info)
    return made


class TestImages(CodecTests):
    """Every mode, palettes, and what files bring along."""

    values = (
        *map(image, MODES),
        *(image(mode, (0, 3)) for mode in ("RGB", "1")),
        *(with_palette("P", kind, n) for kind in ("RGB", "RGBA") for n in (1, 5, 256)),
        with_palette("PA", "RGB", 7),
        opened("PNG", "RGBA", pnginfo=texts(), dpi=(72, 72)),
        opened("GIF", "P", transparency=3),
        opened("TIFF", "I;16", resolution=300.5),
        opened("JPEG", "RGB", exif=Image.Exif()),
        opened("WEBP", "RGB") if "webp" in str(Image.preinit() or "") else image("L"),
        [image("L"), {"mask": image("1")}],
        TiffImagePlugin.IFDRational(1, 3),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare modes, sizes, pixels, palettes and what is known of an image."""
        if not isinstance(left, Image.Image):
            if isinstance(left, list | dict):
                places = left if isinstance(left, dict) else range(len(left))
                same = [self.same(left[place], right[place]) for place in places]
                return len(left) == len(right) and all(same)
            return type(left) is type(right) and left == right
        assert Image.Image in (type(left), type(right))  # And never that of a file.
        left, right = plain(left), plain(right)
        assert (left.mode, left.size) == (right.mode, right.size)
        assert left.getpalette(None) == right.getpalette(None)
        assert left.getpalette() == right.getpalette()
        if left.mode == "P":
            assert left.convert("RGBA").tobytes() == right.convert("RGBA").tobytes()
        return left.tobytes() == right.tobytes() and identical(left.info, right.info)

    def test_none_is_a_pickle(self) -> None:
        """Also with texts and fractions that are classes of Pillow."""
        for value in self.values:
            assert not codecs.carries_code(codecs.encode(value).codec)


def test_an_image_of_a_reader_is_its_own() -> None:
    """A pixel that one reader sets is in no other image."""
    how, payload, nbytes = codecs.own_value(Image.new("RGB", (100, 100)))
    assert (codecs.Sharing.FRESH, True) == (how, nbytes >= 30_000)
    first = payload.open()
    first.putpixel((0, 0), (1, 2, 3))
    assert (0, 0, 0) == payload.open().getpixel((0, 0))


@pytest.mark.parametrize(
    "size", [[0, 2**31 - 1], [0, 2**40], [2**31, 2**31], [-1, -1], [7, 13, 1], [1.0, 1], [13, 8]]
)
def test_a_size_that_does_not_fit_is_refused(size: Any) -> None:
    """Pillow allocates a pointer for each row, of images without columns, too."""
    parts = codecs.encode(image("RGB"))
    for node in parts.meta["nodes"]:
        if node == ["list", [13, 7]]:
            node[1] = size
        if node[0] == "ndarray" and size[0] == 0:
            node[1]["shape"] = [0]
    buffers = parts.buffers if size[0] else (memoryview(b""),)
    with pytest.raises(CorruptDataError):
        codecs.decode(parts._replace(buffers=buffers))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(MODES),
    st.integers(0, 9),
    st.integers(0, 9),
    st.dictionaries(st.text(max_size=5), st.text() | st.binary() | st.tuples(st.floats())),
)
def test_every_image_comes_back(mode: str, width: int, height: int, info: dict[str, Any]) -> None:
    """Of every mode and size."""
    made = image(mode, (width, height))
    made.info = info
    got = through_frame(made)
    assert (mode, made.size, made.tobytes()) == (got.mode, got.size, got.tobytes())
    assert identical(info, got.info)


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_damaged_images_are_a_value_or_an_error_of_ours(rng: Any) -> None:
    """Whatever stands in the place of a field."""
    from tests.unit.codecs.test_hostile import damage

    try:
        got = codecs.decode(damage(codecs.encode(with_palette("P", "RGB", 5)), rng))
    except MemoriesError:
        return
    assert codecs.size_of(got) >= 0
