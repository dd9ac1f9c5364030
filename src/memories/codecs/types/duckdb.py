"""Stores the result of a duckdb relation, as a pyarrow table.

A relation is a query on a connection: it is run when it is stored, and comes back as its result.
"""

from __future__ import annotations

from typing import Any

from memories.codecs.base import Codec, Parts
from memories.codecs.registry import add
from memories.codecs.types.arrow import ArrowCodec
from memories.errors import CorruptDataError
from memories.foundation.optional_imports import package


class RelationCodec(Codec):
    """Encodes a relation under the name of a pyarrow table; its own name is in no frame."""

    name = "duckdb.relation"

    def encode(self, value: Any) -> Parts:
        """Run the query, and encode the table."""
        package("pyarrow")  # With an error that says how to install it, where it is missing.
        return ArrowCodec("pyarrow.table").encode(value.to_arrow_table())

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Raise CorruptDataError: nothing is stored under this name."""
        del parts, writable
        raise CorruptDataError("a duckdb relation is stored as a table of pyarrow")


def register() -> None:
    """Register the codec of duckdb."""
    add(RelationCodec(), package("duckdb").DuckDBPyRelation)
