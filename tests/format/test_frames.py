"""The byte format, held still: golden frames, and a reader that knows only the document."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.format import foreign_reader, make_golden

from memories import codecs
from memories.frames import compression, head, writer
from memories.frames.reader import open_frame
from memories.frames.signing import Keyring
from memories.testing.codecs import identical

VERSIONS = sorted(int(path.name) for path in make_golden.GOLDEN.iterdir())
DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "format.md"


def golden(version: int, name: str) -> Iterator[bytes]:
    """Yield the golden frames of one value."""
    paths = sorted((make_golden.GOLDEN / str(version)).glob(f"{name}.*.frame"))
    assert paths
    for path in paths:
        yield path.read_bytes()


@pytest.mark.parametrize("name", sorted(make_golden.values()))
@pytest.mark.parametrize("version", VERSIONS)
def test_golden_frames_stay_readable(version: int, name: str) -> None:
    """What was stored by any release is read by every later one."""
    for data in golden(version, name):
        got = codecs.decode(open_frame(data, key="golden").parts())
        assert identical(make_golden.values()[name], got)


def test_a_golden_frame_of_the_nodes_stays_readable() -> None:
    """A large value on nodes has no checksums of its own."""
    data = make_golden.ON_NODES.read_bytes()
    assert head.UNSUMMED_FORMAT == data[8]
    opened = open_frame(data, key="golden", verified=True)
    assert identical(make_golden.on_nodes(), codecs.decode(opened.parts()))


@pytest.mark.parametrize("name", sorted(make_golden.differences()))
def test_golden_differences_stay_readable(name: str) -> None:
    """And they are differences: a frame without any would prove nothing."""
    for data in golden(1, name):
        opened = open_frame(data, key="golden")
        assert [compression.DELTA] == [piece.compressor for piece in opened.pieces]
        assert identical(make_golden.differences()[name], codecs.decode(opened.parts()))


@pytest.mark.parametrize("name", sorted(make_golden.numbers()))
def test_golden_numbers_stay_readable(name: str) -> None:
    """Those of pcodec, which is a package of its own with versions of its own."""
    pytest.importorskip("pcodec", reason="pcodec is not installed")
    for data in golden(1, name):
        opened = open_frame(data, key="golden")
        assert [compression.PCODEC] == [piece.compressor for piece in opened.pieces]
        assert identical(make_golden.numbers()[name], codecs.decode(opened.parts()))


def equals_pandas(left: Any, right: Any) -> bool:
    return bool(left.equals(right) and left.index.equals(right.index) and (left.index.freq == "D"))


TABLES = {
    "pandas": equals_pandas,
    "pandas-text": equals_pandas,
    "polars": lambda left, right: left.equals(right),
    "pyarrow": lambda left, right: left.equals(right),
    "scipy": lambda left, right: (left != right).nnz == 0,
    "xarray": lambda left, right: left.identical(right),
}


@pytest.mark.parametrize("name", sorted(TABLES))
@pytest.mark.parametrize("version", VERSIONS)
def test_golden_tables_stay_readable(version: int, name: str) -> None:
    """Tables too, whatever their own packages have changed since."""
    for package in ("pandas", "polars", "pyarrow", "scipy", "xarray"):
        pytest.importorskip(package)
    expected = make_golden.tables()[name]
    for data in golden(version, name):
        got = codecs.decode(open_frame(data, key="golden").parts())
        assert type(expected) is type(got)
        assert TABLES[name](expected, got)


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_signatures_stay_valid(version: int, tmp_path: pathlib.Path) -> None:
    """A signature is over bytes that the document names, in every release the same."""
    ring = Keyring(tmp_path / "none", trusted=[make_golden.KEY])
    for data in golden(version, "signed"):
        assert complex is codecs.decode(open_frame(data).parts(verifier=ring))


@pytest.mark.parametrize("name", ["array", "array-fortran", "array-big-endian"])
def test_what_is_written_today_is_what_was_frozen(name: str) -> None:
    """A raw frame of the same value has the same bytes, or the format has changed."""
    parts = codecs.encode(make_golden.values()[name])
    today = writer.pack(parts, key="golden", version=1).join()
    assert today in list(golden(head.FORMAT, name))


def test_a_reader_written_from_the_document_alone_reads_arrays() -> None:
    """Data outlive their software: forty lines and NumPy must be enough to get them out."""
    big = {f"layer{i}": np.full((2, 3), i, "f4") for i in range(2000)}
    for value in (np.asfortranarray(np.arange(6.0).reshape(2, 3)), [np.arange(3), -7, None], big):
        arrays = value.values() if isinstance(value, dict) else value
        arrays = [value] if isinstance(value, np.ndarray) else arrays
        data = writer.pack(codecs.encode(value), key="kä", version=70_000).join()
        expected = [array for array in arrays if isinstance(array, np.ndarray)]
        got = list(foreign_reader.read_arrays(data))
        assert len(expected) == len(got)
        assert all(map(identical, expected, got))


def test_the_foreign_reader_knows_nothing_of_us() -> None:
    """It proves the document only as long as it uses nothing else, and stays short."""
    source = pathlib.Path(foreign_reader.__file__).read_text()
    assert {"struct", "numpy"} == set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert len([line for line in source.splitlines() if line.strip()]) < 40


def test_the_document_has_the_numbers_of_the_code() -> None:
    """The constants in the code and in the document must agree."""
    text = DOCUMENT.read_text("utf-8")
    assert repr(head.MAGIC)[2:-1] in text
    for number in (head.PREFIX_NBYTES, head.MAX_HEAD, head.MAX_INLINE, head.MAX_KEY):
        assert f"{number:,}" in text
    for name in head.Fields.__struct_fields__ + head.FramePiece.__struct_fields__:
        assert f"`{name}`" in text
