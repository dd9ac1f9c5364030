"""Codecs of nanoarrow arrays and schemas.

Arrays with views of texts are refused: nanoarrow 0.8 damages the memory of the process when it
exports them.
"""

from __future__ import annotations

from typing import Any

from memories.codecs.registry import add
from memories.codecs.types.arrow_capsules import CapsuleCodec, Exported, column_of, only_column
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package


def _array_apart(value: Any) -> Any:
    pa = package("pyarrow")
    field = pa.field(value.schema)
    if _has_views(field.type):
        raise UnsupportedTypeError(
            f"a nanoarrow array of type {field.type} cannot be stored: cast its views of texts to "
            "plain texts, or store pyarrow.array(...) of what it was made of"
        )
    chunks = [pa.array(value.chunk(i)) for i in range(value.n_chunks)]
    return column_of(field, chunks)


def _array_together(table: Any) -> Any:
    nanoarrow = package("nanoarrow")
    field, chunks = only_column(table)
    if _has_views(field.type):
        raise CorruptDataError("a stored nanoarrow array has views of texts")
    arrays = [Exported(field, chunk) for chunk in chunks]
    return nanoarrow.Array.from_chunks(arrays, nanoarrow.Schema(field))


def _has_views(kind: Any) -> bool:
    """Return whether a type, or one within it, has items of 16 bytes that lead elsewhere."""
    types, todo = package("pyarrow").types, [kind]
    while todo:
        kind = todo.pop()
        if types.is_dictionary(kind):
            todo.append(kind.value_type)
        elif isinstance(kind, package("pyarrow").BaseExtensionType):
            todo.append(kind.storage_type)
        elif str(kind) in ("string_view", "binary_view"):
            return True
        else:
            todo.extend(kind.field(i).type for i in range(kind.num_fields))
    return False


def _schema_apart(value: Any) -> Any:
    return package("pyarrow").schema([package("pyarrow").field(value)]).empty_table()


def _schema_together(table: Any) -> Any:
    field, _ = only_column(table)
    return package("nanoarrow").Schema(field)


def register() -> None:
    """Register the codecs of nanoarrow."""
    nanoarrow = package("nanoarrow")
    add(CapsuleCodec("nanoarrow.array", _array_apart, _array_together), nanoarrow.Array)
    add(CapsuleCodec("nanoarrow.schema", _schema_apart, _schema_together), nanoarrow.Schema)
