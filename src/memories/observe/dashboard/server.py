"""Runs the dashboard in a thread of the program, with a server on its own port."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any
from urllib.parse import quote

from memories.errors import InvalidOptionTypeError, StorageError, UnavailableError
from memories.foundation.optional_imports import require
from memories.foundation.periodic import BackgroundThread
from memories.observe.dashboard.app import make_app
from memories.observe.dashboard.auth import Auth
from memories.observe.dashboard.source import DashboardSource
from memories.options.settings import check_port, check_several

START_SECONDS = 10.0
STOP_SECONDS = 5.0


class Dashboard:
    """A running dashboard: `url` is its address, `stop` ends it.

    It is a context manager. It ends with the manager that it shows.
    """

    def __init__(
        self,
        server: Any,
        listener: socket.socket,
        token: str | None,
        ended: Callable[[], object],
    ) -> None:
        self._server = server
        self._ended = ended
        self._listener = listener
        host, port = listener.getsockname()[:2]
        self.port = int(port)
        shown = f"[{host}]" if ":" in host else host
        fragment = f"#token={quote(token)}" if token else ""
        self.url = f"http://{shown}:{port}/{fragment}"
        self._thread = BackgroundThread(partial(server.run, [listener]), "dashboard")

    def start(self) -> None:
        """Start the server and return once it answers."""
        self._thread.start()
        for _ in range(int(START_SECONDS / 0.01)):
            if self._server.started or not self._thread.is_alive():
                break
            time.sleep(0.01)
        if not self._server.started:
            self.stop()
            raise UnavailableError("the dashboard did not start: see its log")

    def stop(self) -> None:
        """End the server. Idempotent."""
        self._server.should_exit = True  # The event streams check it, too, and end.
        if self._thread.join_within(STOP_SECONDS):
            self._listener.close()  # Before that the server still looks for requests there.
        self._ended()

    def wait(self) -> None:
        """Return once the server has ended."""
        self._thread.join()

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Dashboard {self._address}>"

    def _repr_html_(self) -> str:
        return f'<a href="{self._address}" target="_blank" rel="noopener">{self._address}</a>'

    @property
    def _address(self) -> str:
        """Return the URL without the token: what is shown may be stored."""
        return self.url.partition("#")[0]


def serve(
    source: DashboardSource,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    hosts: Collection[str] = (),
    ended: Callable[[], object] = lambda: None,
) -> Dashboard:
    """Start a dashboard about `source` and return it.

    Args:
        source: The data to show.
        host: The address to listen on; anything but the loopback needs a token.
        port: The port, 0 for any that is free.
        token: The token of requests that change something; None makes it read-only.
        hosts: Allowed host names besides `localhost` and addresses.
        ended: Called after its end.

    Raises:
        MissingPackageError: starlette or uvicorn is not installed.
        InvalidOptionError: other machines can reach the address, and no token was given; or an
            argument is invalid.
        StorageError: the port is in use.
    """
    port = check_port(port)
    for name, text in (("host", host), ("token", token)):
        if not (isinstance(text, str) and text) and not (name == "token" and text is None):
            given = type(text).__name__ if name == "token" else f"{text!r:.60}"
            raise InvalidOptionTypeError(f"{name}= must be a str that is not empty, not {given}")
    auth = Auth(host, token, list(check_several("hosts", hosts)))
    servers: list[Any] = []
    app = make_app(source, auth, lambda: any(server.should_exit for server in servers))
    uvicorn = require("uvicorn", extra="dashboard")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StorageError(f"{host}:{port} cannot be listened on: {error.strerror}") from error
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, lifespan="off", ws="none",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    servers.append(uvicorn.Server(config))
    dashboard = Dashboard(servers[0], listener, token, ended)
    dashboard.start()
    return dashboard
