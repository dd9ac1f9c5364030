"""Opens connections by redis-py: names, sockets, TLS, credentials, the choice of the database.

What comes afterwards is sent and received by `Connection`, because redis-py has no limit for a
whole call, cannot wait for several nodes in one thread, and copies what it receives. This is the
only module that imports redis-py, and it does so when the first node is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from memories.cluster.client.resp import ReplyError
from memories.errors import InvalidOptionError, MemoriesError, UnavailableError
from memories.foundation.optional_imports import require
from memories.foundation.printable import printable

if TYPE_CHECKING:
    import socket
    import ssl

_EXTRA = "cluster"
FULL = "max number of clients reached"
FULL_ADVICE = (
    "accepts no more connections (maxclients): close some of its clients, raise maxclients there, "
    "or lower max_connections in node_options"
)
_LOOK_SECONDS = 0.2  # For what a server says that has closed a new connection.


class DialOptions(NamedTuple):
    """How a node is reached, by the names of redis-py."""

    name: str  # Of the node, for errors.
    place: Mapping[str, Any]  # Host and port, or the path of a socket.
    login: Mapping[str, Any]
    secure: Mapping[str, Any] | None  # The options of TLS; None for no TLS.
    context: ssl.SSLContext | None  # Replaces them.


class Opened(Protocol):
    """A connection of redis-py; it owns the socket, and closes it."""

    _sock: socket.socket

    def disconnect(self) -> None:
        """Close the socket."""


def parse_url(text: str) -> dict[str, Any]:
    """Return what a URL says, by redis-py's names.

    Raises:
        ValueError: it cannot be read.
    """
    fields: dict[str, Any] = _module().parse_url(text)
    fields.pop("connection_class", None)
    return fields


@cache
def option_names() -> frozenset[str]:
    """Return the options of a connection that a user may choose."""
    chosen = {"credential_provider", "socket_keepalive", "socket_keepalive_options"}
    secure = inspect.signature(_module().SSLConnection.__init__).parameters
    return frozenset(chosen | {name for name in secure if name.startswith("ssl_")})


def check(dial: DialOptions) -> None:
    """Raise `InvalidOptionError` unless redis-py accepts the options."""
    _made(dial, 1.0, 2)


def open_connection(dial: DialOptions, seconds: float, protocol: int) -> Opened:
    """Return a connection after login, whose connecting and login took `seconds` each at most.

    Raises:
        UnavailableError: the node cannot be reached, or has too many clients.
        ReplyError: it refuses the login; `code` is WRONGPASS, NOAUTH, NOPERM, LOADING or similar.
        InvalidOptionError: a file of TLS cannot be used.
    """
    made = _made(dial, seconds, protocol)
    try:
        made.connect()
    except BaseException as error:
        made.disconnect()
        # redis-py fails in any way at a server that sends what is no answer to a login.
        if isinstance(error, Exception) and not isinstance(error, MemoriesError):
            _explain(error, made, dial)
        raise
    opened: Opened = made
    return opened


def _module() -> Any:
    return require("redis.connection", extra=_EXTRA)


@cache
def _with_context() -> Any:
    """Return redis-py's class for TLS with a ready-made context."""

    class ContextConnection(_module().SSLConnection):  # type: ignore[misc]
        """Wraps its socket by the context that the caller has made."""

        def __init__(self, *, context: Any, **options: Any) -> None:
            self._context = context
            super().__init__(**options)

        def _wrap_socket_with_ssl(self, sock: socket.socket) -> socket.socket:
            wrapped: socket.socket = self._context.wrap_socket(sock, server_hostname=self.host)
            return wrapped

    return ContextConnection


def _made(dial: DialOptions, seconds: float, protocol: int) -> Any:
    """Return an unconnected connection that does not send the name of a library first."""
    limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "protocol": protocol}
    options = {**dial.place, **dial.login, **limits}
    try:
        if "path" in dial.place:
            made = _module().UnixDomainSocketConnection(**options)
        elif dial.context is not None:
            made = _with_context()(context=dial.context, **options)
        elif dial.secure is not None:
            made = _module().SSLConnection(**_secure(dial.secure), **options)
        else:
            made = _module().Connection(**options)
    except require("redis", extra=_EXTRA).RedisError as error:
        raise InvalidOptionError(f"the options of {dial.name} do not fit: {error}") from None
    made.lib_name = made.lib_version = made.driver_info = None  # By the version of redis-py.
    return made


def _secure(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of TLS with our defaults: redis-py 5 does not check the name of a host."""
    import ssl

    unverified = given.get("ssl_cert_reqs", "required") in ("none", None, ssl.CERT_NONE)
    return {"ssl_check_hostname": not unverified, "ssl_password": _refuse_to_ask, **given}


def _refuse_to_ask() -> NoReturn:
    """Stand in for a pass phrase that was not given: OpenSSL would ask for it at the terminal."""
    raise InvalidOptionError(
        "the private key for TLS has a pass phrase: give it as ssl_password= in node_options"
    )


def _explain(error: BaseException, made: Any, dial: DialOptions) -> NoReturn:
    """Raise the error of ours that says what has gone wrong at the opening of a connection."""
    errors = require("redis.exceptions", extra=_EXTRA)
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if dial.secure is not None:
        _explain_tls(causes, dial, dial.secure)
    for kind, code in (
        ("BusyLoadingError", "LOADING"),
        ("NoPermissionError", "NOPERM"),
        ("AuthenticationError", "WRONGPASS"),
        ("ResponseError", "ERR"),
    ):
        if isinstance(error, getattr(errors, kind)):
            text = str(error)
            first, _, rest = text.partition(" ")
            if first.isupper() and first.isalpha():
                code, text = first, rest
            raise ReplyError(code, text, dial.name) from error
    system = next((one for one in causes if isinstance(one, OSError) and one.strerror), None)
    cut = isinstance(system, (BrokenPipeError, ConnectionResetError))
    if any(FULL in str(cause) for cause in causes) or (cut and _says_full(made)):
        raise UnavailableError(f"the node {dial.name} {FULL_ADVICE}") from error
    if any(isinstance(cause, (TimeoutError, errors.TimeoutError)) for cause in causes):
        reason = "it did not answer in time" + (" by TLS" if dial.secure is not None else "")
    else:
        reason = printable(str(error), 200) if system is None else str(system.strerror)
    raise UnavailableError(f"the node {dial.name} cannot be connected to: {reason}") from error


def _explain_tls(
    causes: Sequence[BaseException], dial: DialOptions, secure: Mapping[str, Any]
) -> None:
    """Raise the error of ours, if it was TLS that failed."""
    import ssl

    for cause in causes:
        if isinstance(cause, InvalidOptionError):
            raise cause
        if isinstance(cause, (FileNotFoundError, PermissionError, IsADirectoryError)):
            names = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
            files = [secure[name] for name in names if secure.get(name)]
            raise InvalidOptionError(
                f"the TLS files {files} cannot be used: {cause.strerror}"
            ) from cause
        if isinstance(cause, (ssl.SSLError, ssl.CertificateError)):
            raise UnavailableError(
                f"the node {dial.name} did not agree on TLS: {cause.strerror or cause}"
            ) from cause


def _says_full(made: Any) -> bool:
    """Connect once more, and return whether the server says that it has too many clients."""
    try:
        with made._connect() as plain:
            plain.settimeout(_LOOK_SECONDS)
            return FULL.encode() in plain.recv(200)
    except OSError:
        return False
