"""Codecs of arro3 tables, record batches, arrays, scalars, schemas, fields and types."""

from __future__ import annotations

from typing import Any

from memories.codecs.registry import add
from memories.codecs.types.arrow_capsules import (
    CapsuleCodec,
    column_of,
    only_array,
    only_column,
)
from memories.errors import CorruptDataError
from memories.foundation.optional_imports import package


def _array_apart(value: Any) -> Any:
    pa = package("pyarrow")
    return column_of(pa.field(value.field), [pa.array(value)])


def _chunked_apart(value: Any) -> Any:
    pa = package("pyarrow")
    return column_of(pa.field(value.field), [pa.array(chunk) for chunk in value.chunks])


def _chunked_together(table: Any) -> Any:
    only_column(table)
    return package("arro3.core").Table.from_arrow(table).column(0)


def _batch_apart(value: Any) -> Any:
    return package("pyarrow").Table.from_batches([package("pyarrow").record_batch(value)])


def _batch_together(table: Any) -> Any:
    batches = table.to_batches()
    if len(batches) > 1:
        raise CorruptDataError(f"a stored record batch consists of {len(batches)} batches")
    if not batches:
        pa = package("pyarrow")
        nothing = [pa.array([], field.type) for field in table.schema]
        batches = [pa.RecordBatch.from_arrays(nothing, schema=table.schema)]
    return package("arro3.core").RecordBatch.from_arrow(batches[0])


def _schema_apart(value: Any) -> Any:
    return package("pyarrow").schema(value).empty_table()


def _field_apart(value: Any) -> Any:
    return package("pyarrow").schema([package("pyarrow").field(value)]).empty_table()


def _type_apart(value: Any) -> Any:
    pa = package("pyarrow")
    return pa.schema([pa.field(package("arro3.core").Field("", value))]).empty_table()


def _field_of(table: Any) -> Any:
    field, _ = only_column(table)
    return package("arro3.core").Field.from_arrow(field)


def register() -> None:
    """Register the codecs of arro3."""
    arro3 = package("arro3.core")
    rows = (
        ("table", lambda v: package("pyarrow").table(v), arro3.Table.from_arrow, arro3.Table),
        ("batch", _batch_apart, _batch_together, arro3.RecordBatch),
        ("chunked", _chunked_apart, _chunked_together, arro3.ChunkedArray),
        ("array", _array_apart, lambda t: arro3.Array.from_arrow(only_array(t)), arro3.Array),
        ("scalar", _array_apart, lambda t: arro3.Scalar.from_arrow(only_array(t)), arro3.Scalar),
        ("schema", _schema_apart, lambda t: arro3.Schema.from_arrow(t.schema), arro3.Schema),
        ("field", _field_apart, _field_of, arro3.Field),
        ("type", _type_apart, lambda t: _field_of(t).type, arro3.DataType),
    )
    for name, apart, together, kind in rows:
        add(CapsuleCodec(f"arro3.{name}", apart, together), kind)
