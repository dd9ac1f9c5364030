"""Files without a name, in memory where the system can do that, for other processes to receive."""

from __future__ import annotations

import os
import socket
import tempfile
from typing import BinaryIO

CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # For `socket.recv_fds`; not on macOS.


def anonymous_file(title: str) -> BinaryIO:
    """Return an empty file without a name; `title` is what the system's tools show of it."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create(title, os.MFD_CLOEXEC), "r+b")
    return tempfile.TemporaryFile()
