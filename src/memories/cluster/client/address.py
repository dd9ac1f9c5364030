"""The address and credentials of a node, parsed from `host:port` or a URL.

No repr, name or error of an address shows the password; only the handshake reads it. Parsing does
not look up names or open connections.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from memories.errors import InvalidOptionError

if TYPE_CHECKING:
    import ssl

DEFAULT_PORT = 6379
# Whether each scheme uses TLS. redis-py and valkey-py have the same schemes.
_SCHEMES = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
_FALSE = {"0", "no", "none", "false", "off"}
_TRUE = {"1", "yes", "true", "on", "required"}
_HOST = re.compile(r"[A-Za-z0-9_.:%-]+")


@dataclass(frozen=True)
class TLS:
    """Certificates and checks of TLS; the default trusts the authorities of the system."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Return a fresh client context.

        Raises:
            InvalidOptionError: a file cannot be read, or is not a certificate or key.
        """
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.ca_certs)
            if self.certfile:
                context.load_cert_chain(self.certfile, self.keyfile)
        except OSError as error:
            files = [one for one in (self.ca_certs, self.certfile, self.keyfile) if one]
            raise InvalidOptionError(
                f"the TLS files {files} cannot be used: {error.strerror or error}"
            ) from error
        context.check_hostname = self.verify and self.check_hostname
        context.verify_mode = ssl.CERT_REQUIRED if self.verify else ssl.CERT_NONE
        return context


@dataclass(frozen=True)
class NodeAddress:
    """One node: a host and port or the path of a socket, with credentials and TLS options."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TLS | None = None
    database: int = 0

    @property
    def name(self) -> str:
        """Return the name of the node in errors, logs and states; it contains no secret."""
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def at(self, host: str, port: int) -> NodeAddress:
        """Return the address of another node of the cluster, with the same credentials."""
        return replace(self, host=host, port=port, path=None)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def parse(
        cls,
        text: str | NodeAddress,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: TLS | None = None,
    ) -> NodeAddress:
        """Return the address in `text`; the options apply where `text` leaves them out.

        Args:
            text: `host`, `host:port`, `[v6]:port`, or a URL with the scheme `redis`, `rediss`,
                `valkey`, `valkeys` or `unix`, such as `rediss://user:password@host:6380/0` with
                `?ssl_ca_certs=`, `ssl_certfile=`, `ssl_keyfile=`, `ssl_cert_reqs=none` and
                `ssl_check_hostname=false`, or `unix:///run/valkey.sock?db=1`.
            user: The user name for the login.
            password: The password for the login.
            tls: Use TLS for `host:port`, too.

        Raises:
            InvalidOptionError: the text is not an address. The message shows at most its scheme,
                host and port.
        """
        if isinstance(text, NodeAddress):
            return text
        if not isinstance(text, str) or not text.strip():
            raise InvalidOptionError("a node must be a string such as 'host:6379', and not empty")
        text = text.strip()
        scheme, separator, _ = text.partition("://")
        if not separator:
            address = cls._of_place(text, tls)
        elif scheme.lower() == "unix":
            address = cls._of_socket(text)
        elif scheme.lower() in _SCHEMES:
            address = cls._of_url(text, _SCHEMES[scheme.lower()], tls)
        else:
            raise InvalidOptionError(
                f"the URL of a node must begin with redis://, rediss://, valkey://, valkeys:// or "
                f"unix://, not with {_shown(scheme)}://"
            )
        if address.user is None and address.password is None:
            address = replace(address, user=user, password=password)
        if address.user is not None and address.password is None:
            raise InvalidOptionError(f"{address.name} has a user but no password")
        return address

    @classmethod
    def _of_place(cls, text: str, tls: TLS | None) -> NodeAddress:
        if "@" in text:
            raise InvalidOptionError(
                "a node with a user or password must be a URL: redis://user:password@host:port"
            )
        host, port = _host_and_port(text)
        return cls(host, port, tls=tls)

    @classmethod
    def _of_socket(cls, text: str) -> NodeAddress:
        place, _, query = text[len("unix://") :].partition("?")
        if "@" in query:
            raise _unescaped()
        login, _, path = place.rpartition("@")
        if not path.startswith("/"):
            raise InvalidOptionError("unix:// needs the full path of a socket: unix:///run/x.sock")
        user, password = _login(login)
        options = _options(query, {"db"}, f"unix://{_shown(path)}")
        return cls(
            path=unquote(path), user=user, password=password, database=_database(options.get("db"))
        )

    @classmethod
    def _of_url(cls, text: str, secure: bool, tls: TLS | None) -> NodeAddress:
        try:
            parts = urlsplit(text)
        except ValueError:
            raise InvalidOptionError(
                "the URL of a node cannot be read: check host and port"
            ) from None
        if "@" in parts.path + parts.query + parts.fragment:
            raise _unescaped()
        login, _, place = parts.netloc.rpartition("@")
        user, password = _login(login)
        host, port = _host_and_port(place or "localhost")
        known = {"db", *_TLS_OPTIONS} if secure else {"db"}
        options = _options(parts.query, known, f"{host}:{port}")
        database = _database(options.pop("db", None) or parts.path.strip("/") or None)
        security = _tls(options, tls) if secure else None
        return cls(host, port, None, user, password, security, database)


_TLS_OPTIONS = (
    "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname",
)  # fmt: skip


def _tls(options: dict[str, str], given: TLS | None) -> TLS:
    base = given or TLS()
    return TLS(
        options.get("ssl_ca_certs", base.ca_certs),
        options.get("ssl_certfile", base.certfile),
        options.get("ssl_keyfile", base.keyfile),
        _flag("ssl_cert_reqs", options, base.verify),
        _flag("ssl_check_hostname", options, base.check_hostname),
    )


def _flag(name: str, options: dict[str, str], default: bool) -> bool:
    value = options.get(name, "").lower()
    if value and value not in _FALSE | _TRUE:
        raise InvalidOptionError(f"{name}={_shown(value)} must be yes or no")
    return value in _TRUE if value else default


def _options(query: str, known: set[str], name: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if strange := sorted(options.keys() - known):
        raise InvalidOptionError(
            f"the URL of {name} has unknown options {[_shown(one) for one in strange]}; "
            f"known are {sorted(known)}"
        )
    return options


def _login(text: str) -> tuple[str | None, str | None]:
    user, separator, password = text.partition(":")
    return unquote(user) or None, unquote(password) if separator else None


def _database(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise InvalidOptionError(f"the database {_shown(text)} of a node must be a number")
    return int(text)


def _host_and_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") > 1:
        host, port = text, ""  # A bare address of IPv6.
    else:
        host, _, port = text.partition(":")
    if not _HOST.fullmatch(host):
        raise InvalidOptionError(f"{_shown(host)!r} is not a host; write a node as 'host:6379'")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidOptionError(f"{_shown(port)!r} is not a port for the node {host}")
    return host, int(port or DEFAULT_PORT)


def _unescaped() -> InvalidOptionError:
    return InvalidOptionError(
        "the user and password in the URL of a node must have / ? # and @ written as "
        "%2F %3F %23 and %40"
    )


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
