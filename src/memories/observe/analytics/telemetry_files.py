"""Files in the directory of a store that report the writer's state to other processes.

They are small, replaced atomically and never synced, since they are useless after a power cut. A
reader needs no lock and no part of the engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from memories.errors import CorruptDataError, StorageError
from memories.foundation.regular_file import open_regular, read_regular
from memories.observe.analytics.document_types import check_document
from memories.observe.analytics.series import Series

TELEMETRY_FILE = "telemetry.json"
SERIES_FILE = "analytics.json"
SERIES_POINTS = 512


def write_document(directory: Path, document: Mapping[str, Any]) -> None:
    """Replace the document; OSError if the directory cannot be written to."""
    _replace(directory / TELEMETRY_FILE, msgspec.json.encode(document))


def write_series(directory: Path, series: Series) -> None:
    """Replace the series, reduced to at most `SERIES_POINTS` points."""
    # msgspec writes NaN as null.
    _replace(directory / SERIES_FILE, msgspec.json.encode(series.thinned(SERIES_POINTS)))


def read_document(directory: Path) -> dict[str, Any] | None:
    """Return the latest document of the writer, None without one.

    Raises:
        CorruptDataError: the file is not such a document.
        StorageError: it cannot be read.
    """
    document = _read(directory / TELEMETRY_FILE)
    if document is not None:
        check_document(document, str(directory / TELEMETRY_FILE))
    return document


def read_series(directory: Path) -> Series | None:
    """Return the latest series of the writer, None without any."""
    columns = _read(directory / SERIES_FILE)
    if columns is None:
        return None
    try:
        checked = msgspec.convert(columns, dict[str, list[float | None]])
    except msgspec.ValidationError as error:
        raise CorruptDataError(
            f"{directory / SERIES_FILE} does not hold series: {error}"
        ) from error
    lists = {
        name: [float("nan") if value is None else value for value in column]
        for name, column in checked.items()
    }
    if "timestamps" not in lists or len({len(column) for column in lists.values()}) != 1:
        raise CorruptDataError(f"{directory / SERIES_FILE} does not hold series of equal length")
    return Series(lists)


def writer_lives(document: Mapping[str, Any]) -> bool:
    """Return whether the process that wrote `document` still runs on this machine."""
    if document.get("state") != "open" or document.get("host") != os.uname().nodename:
        return False
    try:
        os.kill(document["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # It runs, as another user.
    return True


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    descriptor = open_regular(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    partial.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = read_regular(path).data
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CorruptDataError(f"{path} is not a JSON object")
    return document
