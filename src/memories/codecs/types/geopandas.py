"""Codecs of geopandas arrays, series and frames: tables of pandas with columns of geometries.

What GEOS and PROJ trust is in `shapely` and `reference_system`. The constructor of geopandas makes
geometries of a column that is named `geometry`; so a frame gets its names afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.codecs.expect import expect_fields, expect_instance
from memories.codecs.nested import StructureCodec
from memories.codecs.registry import add
from memories.codecs.types import pandas, shapely
from memories.codecs.types.pandas import PandasTableCodec
from memories.foundation.optional_imports import package


def _array_apart(value: Any) -> Any:
    return [shapely.array_apart(np.asarray(value, object)), value.crs]


def _array_together(structure: Any) -> Any:
    geometries, crs = expect_fields(structure, 2, "an array of geometries")
    if crs is not None:
        expect_instance(crs, package("pyproj").CRS, "a reference system")
    made = shapely.array_together(geometries)
    return package("geopandas.array").GeometryArray(made, crs=crs)


def _series_together(structure: Any) -> Any:
    return pandas.series_together(structure, package("geopandas").GeoSeries)


def _frame_apart(value: Any) -> Any:
    return [value._geometry_column_name, pandas.frame_apart(value)]


def _frame_together(structure: Any) -> Any:
    active, table = expect_fields(structure, 2, "a frame of geometries")
    made = pandas.frame_together(table, package("geopandas").GeoDataFrame)
    made._geometry_column_name = pandas.expect_name(active)
    return made


def register() -> None:
    """Register the codecs of geopandas."""
    geopandas = package("geopandas")
    array = package("geopandas.array").GeometryArray
    add(StructureCodec("geopandas.array", _array_apart, _array_together), array)
    add(
        PandasTableCodec("geopandas.series", pandas.series_apart, _series_together),
        geopandas.GeoSeries,
    )
    add(
        PandasTableCodec("geopandas.frame", _frame_apart, _frame_together),
        geopandas.GeoDataFrame,
    )
