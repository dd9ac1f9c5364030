"""Reads the state of a store from outside its process: telemetry files, and the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memories.cli.live_writer import locate
from memories.cli.store import opened, require_store
from memories.errors import InvalidOptionError, KeyNotFoundError

if TYPE_CHECKING:
    from memories.observe.analytics import Series


class FileSource:
    """The data of `top`, `report` and a dashboard about the store in a directory.

    A running writer's document is at most about a second old. Without a writer it is the last one,
    with the state `closed`, or `gone` if the process ended without closing the store.
    """

    def __init__(self, store: Path, glacier: str | None = None) -> None:
        require_store(store)
        self._store = store
        self._glacier = glacier

    def document(self) -> Mapping[str, Any]:
        """Return the state of the store."""
        from memories.observe.analytics.telemetry_files import read_document, writer_lives

        document = read_document(self._store)
        if document is None:
            with opened(self._store, self._glacier) as manager:
                return manager.telemetry()
        if document["state"] == "open" and not writer_lives(document):
            document["state"] = "gone"
        return document

    def series(self) -> Series | None:
        """Return the series that the writer saved, None without any."""
        from memories.observe.analytics.telemetry_files import read_series

        return read_series(self._store)

    def explain(self, key: str) -> Mapping[str, Any]:
        """Return an explanation of a key on the disk, or in the RAM of the writer.

        Raises:
            KeyNotFoundError: it is in neither, or not known to be; the message says which.
        """
        from memories.core.explain import explanation_document

        at_rest, writer, in_ram = locate(self._store, self._glacier, key)
        if at_rest is None:
            words = writer.about_absent(key) if writer else ""
            if in_ram is None:
                raise KeyNotFoundError(words or f"{key!r} is in no tier")
            return {**in_ram._asdict(), "text": words}
        found = explanation_document(at_rest)
        if writer is not None and in_ram is not None:
            found["text"] = f"It is {writer.where(in_ram)}. {found['text']}"
        return found

    def act(self, action: str, key: str) -> str:
        """Raise InvalidOptionError: only the program that has the store open moves its values."""
        raise InvalidOptionError(
            f"{action} of {key[:60]!r} needs the program that has the store open: start the "
            "dashboard there, with manager.dashboard(token=...)"
        )
