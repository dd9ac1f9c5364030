"""What a report says about the configuration: every option that decides where values lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from memories import MemoryManager, Rule
from memories.options.described import described


def test_the_options_are_said_in_words(tmp_path: Path) -> None:
    """A report that is sent to a colleague answers the first question: how was it set up?"""
    rules = [Rule(prefix="session/", ttl=5, pin=True)]
    with MemoryManager("2 MB", "3 MB", 1, storage_path=tmp_path / "maps", rules=rules) as manager:
        document = manager.telemetry()
    assert "maps" == document["store"]
    found = document["configuration"]
    assert "hot 2.0 MB, warm 3.0 MB, cold 1.0 GB" == found["sizes"]
    assert "session/: ttl 5, pinned" == found["rules"]
    assert ("auto", "an error", "off") == (
        found["eviction policy"],
        found["when full"],
        found["glacier"],
    )


def test_no_credential_is_shown() -> None:
    """The URL of an archive may carry a password and a signature."""
    with MemoryManager(1, 1, 1) as manager:
        settings = replace(
            manager._services.settings,
            glacier_enabled=True,
            glacier_url="s3://me:secret@tiles/maps?signature=secret",
        )
    assert "s3://tiles/maps" == described(settings)["glacier"]
    assert "secret" not in str(described(settings))
