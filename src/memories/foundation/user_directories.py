"""The user's configuration directory, for settings and keys; a process may have none.

It is not created here. A process in a container often has neither `HOME` nor an entry in the user
database: then no such directory is read, and nothing is written to the working directory instead.
"""

from __future__ import annotations

from pathlib import Path


def config_directory() -> Path | None:
    """Return the user's configuration directory, whether or not it exists; None without a home."""
    import platformdirs

    try:
        path = Path(platformdirs.user_config_dir("memories"))
    except RuntimeError:
        return None
    return path if path.is_absolute() else None  # Older versions return "~/.config" unexpanded.
