"""Makes a text of someone else fit for one line of a log, an error or a page."""

from __future__ import annotations


def printable(text: str, most: int = 60) -> str:
    """Return a text for display: shortened, without line breaks and control characters."""
    shown = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii")
        for one in text[: most + 1]
    )
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
