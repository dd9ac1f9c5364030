"""The user's own directory for configuration and keys; a process may have none.

Not created here. A container's process often has neither `HOME` nor a line in the list of users:
then nothing is looked for, and nothing is written beside the working directory instead.
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
    return path if path.is_absolute() else None  # Older ones return "~/.config" as it is.
