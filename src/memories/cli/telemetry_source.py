"""A store watched from outside its process: what its writer tells, and what lies on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memories.cli.store import opened, require_store
from memories.errors import InvalidOptionError

if TYPE_CHECKING:
    from memories.observe.analytics import Series


class FileSource:
    """Answers `top`, `report` and a dashboard about the store in a directory.

    The writer's own word is a second old at most. Where nobody writes, it is the last word, and its
    state says so: `closed`, or `gone` when the process ended without closing.
    """

    def __init__(self, store: Path, glacier: str | None = None) -> None:
        require_store(store)
        self._store = store
        self._glacier = glacier

    def document(self) -> Mapping[str, Any]:
        """Return what is known of the store."""
        from memories.observe.analytics.telemetry_files import read_document, writer_lives

        document = read_document(self._store)
        if document is None:
            with opened(self._store, self._glacier) as manager:
                return manager.telemetry()
        if document["state"] == "open" and not writer_lives(document):
            document["state"] = "gone"
        return document

    def series(self) -> Series | None:
        """Return the series that the writer kept, None if it did not."""
        from memories.observe.analytics.telemetry_files import read_series

        return read_series(self._store)

    def explain(self, key: str) -> Mapping[str, Any]:
        """Return what is known of a key on disk."""
        from memories.core.explain import explanation_document

        with opened(self._store, self._glacier) as manager:
            return explanation_document(manager.explain(key))

    def act(self, action: str, key: str) -> str:
        """Refuse: only the program that has the store open moves its values."""
        raise InvalidOptionError(
            f"{action} of {key[:60]!r} is for the program that has the store open; start the "
            "dashboard there, with manager.dashboard(token=...)"
        )
