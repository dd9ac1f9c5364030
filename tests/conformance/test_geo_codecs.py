"""The codecs of geographic types and of images under `CodecTests`; what is missing is skipped."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memories import codecs
from memories.codecs.base import Parts
from memories.errors import CorruptDataError, MemoriesError, UnsupportedTypeError
from memories.testing.codecs import CodecTests, identical, through_frame

shapely = pytest.importorskip("shapely", reason="shapely is not installed")
gpd = pytest.importorskip("geopandas", reason="geopandas is not installed")
pyproj = pytest.importorskip("pyproj", reason="pyproj is not installed")
pd = pytest.importorskip("pandas", reason="pandas is not installed")

RING = shapely.LinearRing([(0, 0), (1, 0), (1, 1)])
with np.errstate(invalid="ignore"):  # shapely warns of each NaN.
    NOWHERE = shapely.points([math.nan, math.nan])
    ENDLESS = shapely.LineString([(0, 0), (math.inf, -0.0), (math.nan, 1)])
SQUARE = shapely.Polygon(
    [(0, 0, 1), (4, 0, 2), (4, 4, 3), (0, 4, 4)], [[(1, 1, 0), (2, 1, 0), (2, 2, math.nan)]]
)
GEOMETRIES = (
    shapely.Point(1, 2),
    shapely.Point(1, 2, 3),
    shapely.Point(1, 2, math.nan),
    shapely.Point(),
    NOWHERE,
    RING,
    shapely.LinearRing(),
    ENDLESS,
    SQUARE,
    shapely.MultiPoint([(1, 2), (3, 4)]),
    shapely.multipoints([shapely.Point(), NOWHERE, shapely.Point(1, 2)]),
    shapely.MultiLineString([[(0, 0), (1, 1)], [(2, 2), (3, 3)]]),
    shapely.MultiPolygon([SQUARE]),
    shapely.GeometryCollection([shapely.Point(1, 2, 3), shapely.Point(1, 2), SQUARE]),
    shapely.GeometryCollection([shapely.GeometryCollection([RING]), NOWHERE]),
    shapely.GeometryCollection(),
    shapely.set_srid(shapely.Point(1, 2), 4326),
    shapely.set_srid(shapely.GeometryCollection([RING]), 4326),
    *shapely.from_wkt(
        ["POINT Z EMPTY", "POLYGON Z EMPTY", "LINESTRING Z EMPTY", "MULTIPOLYGON EMPTY"]
    ),
)


def same_geometry(left: Any, right: Any) -> bool:
    """Compare kind, dimensions, reference system and the bits of the numbers, at every level."""
    if left is None or right is None:
        return left is right
    flags = (type, shapely.get_srid, shapely.has_z, shapely.is_empty)
    if any(flag(left) != flag(right) for flag in flags):
        return False
    if hasattr(left, "geoms"):
        return len(left.geoms) == len(right.geoms) and all(
            map(same_geometry, left.geoms, right.geoms)
        )
    if isinstance(left, shapely.Polygon) and not left.is_empty:
        rings = [[one.exterior, *one.interiors] for one in (left, right)]
        return len(rings[0]) == len(rings[1]) and all(map(same_geometry, *rings))
    numbers = [shapely.get_coordinates(one, include_z=one.has_z) for one in (left, right)]
    return numbers[0].shape == numbers[1].shape and numbers[0].tobytes() == numbers[1].tobytes()


class TestGeometries(CodecTests):
    """Every kind of shapely, with what WKB alone would lose."""

    values = GEOMETRIES

    def same(self, left: Any, right: Any) -> bool:
        """Compare all that belongs to a geometry."""
        return same_geometry(left, right)


CRS = pyproj.CRS("EPSG:25832")
GEO_FRAME = gpd.GeoDataFrame(
    {
        "name": ["a", None, "c"],
        "number": [1.5, math.nan, -0.0],
        "geometry": gpd.GeoSeries([shapely.Point(1, 2), None, shapely.Point()], crs=CRS),
        "outline": gpd.GeoSeries([SQUARE, RING, None], crs="EPSG:4326"),
    },
    geometry="geometry",
    crs=CRS,
)
GEO_FRAME.attrs["source"] = {"year": 2026}


class TestGeoTables(CodecTests):
    """Series and frames of geopandas, with several geometries, reference systems and names."""

    values = (
        GEO_FRAME,
        GEO_FRAME.set_geometry("outline"),
        GEO_FRAME.set_index("name"),
        GEO_FRAME.iloc[:0],
        GEO_FRAME.geometry,
        GEO_FRAME["outline"].rename(("a", 1)),
        GEO_FRAME.outline.array,
        gpd.GeoSeries(GEOMETRIES),
        gpd.GeoSeries([], crs="EPSG:3857"),
        gpd.GeoDataFrame({"a": [1, 2]}),
        gpd.GeoDataFrame({"geometry": pd.Series([1, "x"], dtype=object)}),
        pd.DataFrame({"shape": GEO_FRAME.outline.array}),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare types, tables, reference systems, and geometries bit for bit."""
        if type(left) is not type(right):
            return False
        if isinstance(left, pd.DataFrame):
            names = getattr(left, "_geometry_column_name", None)
            assert names == getattr(right, "_geometry_column_name", None)
            assert left.attrs == right.attrs
            pd.testing.assert_index_equal(left.columns, right.columns)
            pairs = [(left.iloc[:, i], right.iloc[:, i]) for i in range(left.shape[1])]
            return all(self.same(*pair) for pair in pairs)
        if isinstance(left, pd.Series):
            pd.testing.assert_index_equal(left.index, right.index)
            assert left.name == right.name
            if left.dtype != "geometry":
                pd.testing.assert_series_equal(left, right)
                return True
            left, right = left.array, right.array
        assert left.crs == right.crs
        assert getattr(left.crs, "srs", None) == getattr(right.crs, "srs", None)
        return all(map(same_geometry, np.asarray(left, object), np.asarray(right, object)))


class TestReferenceSystems(CodecTests):
    """Systems by a code, by WKT, by JSON and by the old strings of PROJ."""

    values = (
        CRS,
        pyproj.CRS("OGC:CRS84"),
        pyproj.CRS(CRS.to_wkt()),
        pyproj.CRS(CRS.to_json()),
        pyproj.CRS("+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80 +units=m +no_defs"),
        pyproj.CRS("WGS 84"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "+init=/etc/passwd:x", "init = epsg:4326", "+proj=longlat +nadgrids=/tmp/x.gsb",
        "+proj=pipeline +step +proj=axisswap", "+proj=vgridshift +grids=a.tif", "/etc/passwd",
        "WGS 84 or a name that would be searched for", "", "x" * 200_000, 5, None, ["EPSG", 4326],
        'GEOGCS["x",EXTENSION["PROJ4","+init=/etc/passwd:x"]]',
    ],
)  # fmt: skip
def test_the_name_of_a_file_is_no_reference_system(text: Any) -> None:
    """PROJ opens files that such texts name."""
    for codec in ("pyproj.crs", "rasterio.crs"):
        if codec == "rasterio.crs" and (text == "" or not _has_rasterio()):
            continue
        parts = Parts(
            codec, {"nodes": [["list", [text]]] if type(text) is list else [], "root": text}
        )
        with pytest.raises(CorruptDataError):
            codecs.decode(parts)


def _has_rasterio() -> bool:
    try:
        import rasterio
    except ImportError:
        return False
    return bool(rasterio)


NUMBERS = st.sampled_from([0.0, -0.0, 1.5, 1e300, math.inf, math.nan]) | st.floats(width=16)


@st.composite
def geometries(draw: st.DrawFn, depth: int = 2) -> Any:
    """Draw a geometry of any kind, of two or three dimensions, and collections of them."""
    kind = draw(st.integers(0, 7 if depth else 4))
    if kind > 4:
        parts = draw(st.lists(geometries(depth - 1), max_size=3))
        return shapely.geometrycollections(np.array([*parts, None], object)[:-1])
    width = draw(st.integers(2, 3))
    if kind == 0:
        return draw(st.sampled_from(GEOMETRIES))
    if kind == 1:
        return shapely.points(draw(st.lists(NUMBERS, min_size=width, max_size=width)))
    rows = np.array(draw(st.lists(NUMBERS, min_size=5 * width, max_size=5 * width)))
    rows = rows.reshape(5, width)
    if kind == 2:
        return shapely.linestrings(rows)
    rows = np.concatenate([rows, rows[:1]])  # A ring ends where it began.
    rows[[0, -1]] = np.nan_to_num(rows[[0, -1]], posinf=1, neginf=1)
    ring = shapely.linearrings(rows)
    return (
        ring if kind == 3 else shapely.polygons(ring, holes=draw(st.sampled_from([None, [ring]])))
    )


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_geometry_comes_back(data: st.DataObject) -> None:
    """In a series and in a list: bit for bit, and never as a pickle."""
    with np.errstate(invalid="ignore"):  # shapely warns of each NaN.
        found = data.draw(st.lists(st.none() | geometries(), max_size=4))
        series = gpd.GeoSeries(np.array([*found, None], object)[:-1])
    parts = codecs.encode(series)
    assert "geopandas.series" == parts.codec
    got = codecs.decode(codecs.freeze(parts))
    assert all(map(same_geometry, found, np.asarray(got.array, object)))
    assert all(map(same_geometry, found, through_frame(found)))


def _nested(levels: int) -> Any:
    made = shapely.Point(1, 2)
    for _ in range(levels):
        made = shapely.geometrycollections([made])
    return made


def test_geometries_that_are_nested_deeply_are_refused() -> None:
    """GEOS recurses for each level, and the process would end."""
    assert same_geometry(_nested(50), through_frame(_nested(50)))
    with pytest.raises(UnsupportedTypeError, match="levels"):
        codecs.encode(_nested(100))
    head = bytes([1, 7, 0, 0, 0, 1, 0, 0, 0])
    for count in (100, 100_000):
        wkb = head * count + bytes([1, 7, 0, 0, 0, 0, 0, 0, 0])
        with pytest.raises(CorruptDataError, match="deeply"):
            codecs.decode(
                Parts(
                    "shapely.geometry",
                    {"nodes": [["bytes", None, [0]]], "root": [0]},
                    (memoryview(wkb),),
                )
            )


def test_parts_that_a_list_shares_do_not_unfold_without_end() -> None:
    """Thirty lists of two, each of the one before it, are 2**30 points."""
    nodes: list[Any] = [["list", [7, 0, [1]]]]
    nodes = [["bytes", None, [0]], ["list", [[0], [0]]], ["list", [7, 0, [1]]]]
    for _ in range(40):
        nodes.append(["list", [[len(nodes) - 1], [len(nodes) - 1]]])
        nodes.append(["list", [7, 0, [len(nodes) - 1]]])
    point = shapely.to_wkb(shapely.Point(1, 2), byte_order=1)
    parts = Parts(
        "shapely.geometry", {"nodes": nodes, "root": [len(nodes) - 1]}, (memoryview(point),)
    )
    with pytest.raises(CorruptDataError, match="out of proportion"):
        codecs.decode(parts)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_geometries_are_a_value_or_an_error_of_ours(data: st.DataObject) -> None:
    """Any byte of the WKB, and any length."""
    parts = codecs.encode(gpd.GeoSeries(GEOMETRIES))
    buffers = [bytearray(buffer) for buffer in parts.buffers]
    for _ in range(data.draw(st.integers(1, 4))):
        buffer = data.draw(st.sampled_from([one for one in buffers if one]))
        buffer[data.draw(st.integers(0, len(buffer) - 1))] = data.draw(st.integers(0, 255))
    try:
        got = codecs.decode(parts._replace(buffers=tuple(memoryview(bytes(b)) for b in buffers)))
    except MemoriesError:
        return
    with np.errstate(invalid="ignore"):
        assert len(GEOMETRIES) == len(got.bounds)


def test_what_a_reader_changes_stays_with_the_reader() -> None:
    """A frame is built again for each reader, and preparing a geometry changes it."""
    how, payload, nbytes = codecs.own_value(GEO_FRAME)
    assert codecs.Sharing.FRESH is how
    assert nbytes > 100
    first, second = payload.open(), payload.open()
    first.loc[0, "geometry"] = shapely.Point(9, 9)
    shapely.prepare(first.outline.iloc[0])
    assert shapely.Point(1, 2) == second.geometry.iloc[0] == payload.open().geometry.iloc[0]
    assert not shapely.is_prepared(second.outline.iloc[0])


class TestProfiles(CodecTests):
    """What rasterio says of a raster."""

    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    from affine import Affine
    from rasterio.crs import CRS as RasterCRS
    from rasterio.profiles import DefaultGTiffProfile, Profile
    from rasterio.windows import Window

    profile = Profile(
        driver="GTiff", dtype="float32", nodata=math.nan, width=10, height=20, count=2,
        crs=RasterCRS.from_epsg(32633), transform=Affine(30.0, 0.0, 4e5, 0.0, -30.0, 4.2e6),
        blockxsize=512, tiled=True, compress="deflate",
    )  # fmt: skip
    values = (
        profile,
        DefaultGTiffProfile(count=1),
        Profile(),
        dict(profile),
        Affine(1.5, -0.0, math.inf, 1e-300, 2, 3),
        RasterCRS.from_epsg(4326),
        RasterCRS.from_epsg(3857),
        RasterCRS(),
        Window(1, 2.5, 3, 4),
        [rasterio.coords.BoundingBox(0, 1, 2, 3)],
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare the dict of a profile, and the text of a reference system."""
        if type(left) is not type(right):
            return False
        if isinstance(left, self.RasterCRS):
            return bool(left == right) and left.to_wkt() == right.to_wkt()
        if isinstance(left, self.Profile | dict):
            return list(left) == list(right) and all(
                self.same(left[key], right[key]) for key in left
            )
        return identical(left, right)
