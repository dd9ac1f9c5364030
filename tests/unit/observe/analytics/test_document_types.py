"""A document of another process: each field has its type, and every text stays text."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from memories import CorruptDataError, MemoryManager
from memories.observe.analytics.report import report
from memories.observe.analytics.telemetry_files import read_document, write_document

TAGS = "<img src=x onerror=alert(1)>"


def places(document: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Return the path to every value of a document."""
    found = [path] if path else []
    if isinstance(document, dict):
        for name, value in document.items():
            found += places(value, (*path, name))
    if isinstance(document, list):
        for index, value in enumerate(document):
            found += places(value, (*path, index))
    return found


def planted(document: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Return the document with `value` in one place."""
    made = copy.deepcopy(document)
    inner: Any = made
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return made


def test_tags_in_any_field_are_text_in_a_report(tmp_path: Path) -> None:
    """Who can write to the store must not run code in the browser of who looks at it."""
    with MemoryManager(0.001, 0.001, 1, True, storage_path=tmp_path / "s") as manager:
        manager.store("a", b"x" * 100, tier="warm", pin=True)
        for _ in range(9):
            manager.retrieve("a")
        manager.store("b", b"x" * 100, tier="cold")
        manager.migrate("b", "glacier")
        manager.retrieve("b")
        document = json.loads(json.dumps(manager.telemetry()))
    refused = shown = 0
    for path in places(document):
        write_document(tmp_path, planted(document, path, TAGS))
        try:
            page = report(read_document(tmp_path) or {}, None)
        except CorruptDataError:
            refused += 1
        else:
            shown += 1
            assert "<img" not in page, path
    assert refused > 50
    assert shown > 5


def test_names_of_tiers_and_causes_are_text_too(tmp_path: Path) -> None:
    """A name is as free as a value."""
    with MemoryManager(0.001, 0.001, 1) as manager:
        manager.store("a", 1)
        manager.delete("a")
        document = json.loads(json.dumps(manager.telemetry()))
    for name in ("configuration", "removed", "prefetch", "sample"):
        document[name] = {TAGS: document["removed"].get("removed") if name == "removed" else None}
        if name == "configuration":
            document[name] = {TAGS: "x"}
        if name == "prefetch":
            document[name] = {TAGS: 1}
    write_document(tmp_path, document)
    assert "<img" not in report(read_document(tmp_path) or {}, None)
    write_document(tmp_path, document | {"tiers": {TAGS: document["tiers"]["hot"]}})
    with pytest.raises(CorruptDataError):
        read_document(tmp_path)
