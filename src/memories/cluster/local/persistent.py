"""Local servers that outlive the program which started them, and the file that lists them.

The file has the process id and the start time of each server, so that a later program stops these
processes and no others. A server that ends is not restarted.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from memories.cluster.local.group import LocalGroup
from memories.cluster.local.process import ServerProcess
from memories.errors import InvalidOptionError, StorageError, StoreLockedError
from memories.foundation.regular_file import open_regular, read_regular

FILE = "servers.json"
_MOST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class PersistentServer(msgspec.Struct, frozen=True):
    """One server: its address and its process."""

    name: str
    pid: int
    started: str

    @property
    def process(self) -> ServerProcess:
        """Return its process."""
        return ServerProcess(self.pid, self.started)


class _GroupFile(msgspec.Struct, frozen=True):
    clustered: bool
    servers: list[PersistentServer]
    password: str | None = None


@dataclass(frozen=True)
class PersistentGroup:
    """Servers with a name that the user has chosen."""

    name: str
    folder: Path
    clustered: bool
    servers: tuple[PersistentServer, ...]
    password: str | None = field(default=None, repr=False)

    @property
    def names(self) -> list[str]:
        """Return `host:port` of every server, for the `nodes` of a manager."""
        return [server.name for server in self.servers]

    def stop(self) -> int:
        """Stop the servers that still run, delete their folder, and return how many ran."""
        running = [server.process for server in self.servers if server.process.alive()]
        for process in running:
            process.stop()
        shutil.rmtree(self.folder)
        return len(running)


def start_group(
    name: str, count: int, *, clustered: bool = False, arguments: Sequence[str] = ()
) -> PersistentGroup:
    """Start servers that continue after this program.

    Raises:
        StoreLockedError: a group of this name is running.
        UnavailableError: a server did not start; none is left running.
    """
    folder = _folder_of(name)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise StoreLockedError(
            f"the local servers {name!r} are running, or were not stopped: memories cluster down"
        ) from None
    try:
        password = secrets.token_urlsafe(24)
        group = LocalGroup(
            folder,
            count,
            replicas=1 if clustered else None,
            arguments=arguments,
            password=password,
        )
        # Written after every start, so that a program that is killed leaves no unlisted server.
        group.start(on_started=lambda: _write(folder, group, password))
    except BaseException:
        shutil.rmtree(folder)
        raise
    return PersistentGroup(name, folder, clustered, _servers_of(group), password)


def known_password(node: str) -> str | None:
    """Return the password of a server that `start_group` has started, by its `host:port`.

    None if no such server of this user runs: another process may have its port then.
    """
    try:
        root = _own_folder()
        groups = sorted(root.iterdir()) if root.is_dir() else []
    except (OSError, StorageError):
        return None  # The folder is not this user's own: nothing in it is believed.
    for folder in groups:
        try:
            found = _read(folder)
        except (OSError, msgspec.MsgspecError):
            continue  # It is being made or removed.
        for server in found.servers:
            if server.name == node and server.process.alive():
                return found.password
    return None


def _servers_of(group: LocalGroup) -> tuple[PersistentServer, ...]:
    started = (one for one in group.servers if one.pid)
    return tuple(PersistentServer(one.name, one.pid, one.process.started) for one in started)


def _write(folder: Path, group: LocalGroup, password: str) -> None:
    new = folder / f"{FILE}.new"
    new.unlink(missing_ok=True)
    content = _GroupFile(group.clustered, list(_servers_of(group)), password)
    with os.fdopen(open_regular(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(msgspec.json.encode(content))
    new.replace(folder / FILE)


def _read(folder: Path) -> _GroupFile:
    data = read_regular(folder / FILE, limit=_MOST_BYTES).data
    return msgspec.json.decode(data, type=_GroupFile)


def find_group(name: str) -> PersistentGroup | None:
    """Return the servers of that name, running or not; None if there are none.

    Raises:
        StorageError: the file that lists them is damaged.
    """
    folder = _folder_of(name)
    try:
        written = _read(folder)
    except FileNotFoundError:
        # A program that is killed before it has started any server leaves only the folder.
        return PersistentGroup(name, folder, False, ()) if folder.is_dir() else None
    except msgspec.MsgspecError as error:
        raise StorageError(
            f"{str(folder / FILE)!r} does not list the servers that were started: {error}; "
            "stop them by hand and remove that folder"
        ) from error
    servers = tuple(written.servers)
    return PersistentGroup(name, folder, written.clustered, servers, written.password)


def _folder_of(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise InvalidOptionError(f"the name {name!r} of servers may have letters, digits, . _ -")
    return runtime_folder() / name


def runtime_folder() -> Path:
    """Return the folder of this user's running servers, which no other user can write to.

    Raises:
        StorageError: another user owns it, or can write to it.
    """
    _runtime_path().mkdir(mode=0o700, parents=True, exist_ok=True)
    return _own_folder()


def _runtime_path() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given:
        return Path(given, "memories-nodes")
    return Path(tempfile.gettempdir(), f"memories-nodes-{os.getuid()}")


def _own_folder() -> Path:
    folder = _runtime_path()
    status = folder.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if status.st_uid != os.getuid() or not private:
        raise StorageError(
            f"other users own {str(folder)!r} or have access to it; remove it, or set "
            "XDG_RUNTIME_DIR"
        )
    return folder
