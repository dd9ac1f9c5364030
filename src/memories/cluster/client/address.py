"""The address of a node with its credentials and options, parsed from `host:port` or a URL.

redis-py reads URLs, and its connection classes know the options. No repr, name or error of an
address shows a secret. Parsing does not look up names or open connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memories.cluster.client import redis_py
from memories.errors import InvalidOptionError

if TYPE_CHECKING:
    import ssl

DEFAULT_PORT = 6379
TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 64
# Whether each scheme uses TLS. redis-py and valkey-py have the same schemes.
_SCHEMES = {"redis": False, "valkey": False, "rediss": True, "valkeys": True, "unix": False}
_HOST = re.compile(r"[A-Za-z0-9_.:%-]+")
_NAMED = re.compile(
    r"(?:\[(?P<v6>[A-Za-z0-9_.:%-]+)\]|(?P<host>[A-Za-z0-9_.%-]+)):(?P<port>[0-9]{1,5})"
)
# The parts of an address in redis-py's names, and the options that this client has no use for.
_PARTS = frozenset({"host", "port", "path", "db", "username", "password"})
_OURS = frozenset({"timeout", "max_connections"})


@dataclass(frozen=True)
class TLS:
    """The options of TLS, by the names of redis-py (`ssl_ca_certs`), or a context of the caller."""

    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    context: ssl.SSLContext | None = None


@dataclass(frozen=True)
class NodeAddress:
    """One node: a host and port or the path of a socket, with credentials and options.

    `options` has further options by the names of redis-py, such as `credential_provider`.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TLS | None = None
    database: int = 0
    timeout: float = TIMEOUT_SECONDS
    max_connections: int = MAX_CONNECTIONS
    # Returns where this program reaches a node that other nodes know by that host and port.
    address_remap: Callable[[tuple[str, int]], tuple[str, int]] | None = field(
        default=None, repr=False, compare=False
    )
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # Why no connection is made to it: it would get credentials that are not meant for it.
    refusal: str = field(default="", compare=False)

    @property
    def secrets(self) -> tuple[Any, ...]:
        """Return what a node at this address learns, or can use; empty if that is nothing."""
        tls = TLS() if self.tls is None else self.tls
        provider = self.options.get("credential_provider")
        found = (
            self.password,
            None if provider is None else "a provider",
            tls.options.get("ssl_certfile"),
            None if tls.context is None else "a context",
        )
        return (self.user, *found) if any(one is not None for one in found) else ()

    @property
    def name(self) -> str:
        """Return the name of the node in errors, logs and states; it contains no secret."""
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def dial(self) -> redis_py.DialOptions:
        """Return how redis-py reaches the node."""
        login = {**self.options, "db": self.database}
        if "credential_provider" not in login:
            login |= {"username": self.user, "password": self.password}
        place: dict[str, Any] = {"host": self.host, "port": self.port}
        if self.path is not None:
            place = {"path": self.path}
            login = {key: login[key] for key in login if not key.startswith("socket_")}
        secure = None if self.tls is None else self.tls.options
        return redis_py.DialOptions(
            self.name, place, login, secure, self.tls.context if self.tls is not None else None
        )

    def at(self, host: str, port: int) -> NodeAddress:
        """Return the address of another node of the cluster, with the same credentials."""
        if self.address_remap is not None:
            host, port = self.address_remap((host, port))
        return replace(self, host=host, port=port, path=None, refusal="")

    def refused(self, reason: str) -> NodeAddress:
        """Return the address without credentials, to which no connection is made."""
        return replace(self, user=None, password=None, tls=None, options={}, refusal=reason)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def parse(
        cls,
        text: str | NodeAddress,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: TLS | ssl.SSLContext | bool | None = None,
        **options: Any,
    ) -> NodeAddress:
        """Return the address in `text`; the options apply where `text` leaves them out.

        Args:
            text: `host`, `host:port`, `[v6]:port`, or a URL with the scheme `redis`, `rediss`,
                `valkey`, `valkeys` or `unix`, such as `rediss://user:password@host:6380/0` with
                `?ssl_ca_certs=` and other options of redis-py, or `unix:///run/valkey.sock?db=1`.
            user: The user name for the login; `username=` is the same.
            password: The password for the login.
            tls: Use TLS for `host:port`, too; a context replaces all options of TLS.
            options: `timeout`, the longest that a node may take to answer; `max_connections` to
                each node; `address_remap`, a function from the host and port that nodes announce to
                those by which they are reached; `ssl_...`, `credential_provider`, `db` and
                `socket_keepalive_options` as in redis-py.

        Raises:
            InvalidOptionError: the text is not an address, or an option is not known. The message
                shows at most the scheme, host and port.
        """
        if isinstance(text, NodeAddress):
            return text
        if not isinstance(text, str) or not text.strip():
            raise InvalidOptionError("a node must be a string such as 'host:6379', and not empty")
        text = text.strip()
        scheme, separator, _ = text.partition("://")
        given = dict(options)
        user = given.pop("username", user)
        remap = given.pop("address_remap", None)
        if remap is not None and not callable(remap):
            raise InvalidOptionError("address_remap= must be a function of (host, port)")
        secured = _tls(given, tls)
        if not separator:
            address = cls._of_place(text, secured)
        elif scheme.lower() in _SCHEMES:
            address = cls._of_url(text, scheme.lower(), secured)
        else:
            raise InvalidOptionError(
                f"the URL of a node must begin with redis://, rediss://, valkey://, valkeys:// or "
                f"unix://, not with {_shown(scheme)}://"
            )
        if address.user is None and address.password is None:
            address = replace(address, user=user, password=password)
        address = replace(_with_options(address, given), address_remap=remap)
        if address.user is not None and address.password is None:
            raise InvalidOptionError(f"{address.name} has a user but no password")
        if address.tls is not None or address.options:
            redis_py.check(address.dial)
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
    def _of_url(cls, text: str, scheme: str, tls: TLS | None) -> NodeAddress:
        try:
            parts = urlsplit(text)
            fields = redis_py.parse_url(text.replace("valkey", "redis", 1))
        except ValueError:
            raise InvalidOptionError(
                "the URL of a node cannot be read: check host, port and options"
            ) from None
        if "@" in parts.path + parts.query + parts.fragment:
            raise _unescaped()
        place = parts.netloc.rpartition("@")[2]
        login = fields.get("username") or None, fields.get("password")
        database = _database(fields.get("db"), parts.path if scheme != "unix" else "")
        if scheme == "unix":
            if place or not parts.path:
                raise InvalidOptionError(
                    "unix:// needs the full path of a socket: unix:///run/x.sock"
                )
            if not fields["path"].isprintable():
                raise InvalidOptionError("the path of the socket of a node must be printable")
            address = cls(path=fields["path"], user=login[0], password=login[1], database=database)
        else:
            host, port = _host_and_port(place or "localhost")
            address = cls(host, port, None, *login, database=database)
            if not _SCHEMES[scheme] and tls is not None:
                raise InvalidOptionError(
                    f"{address.name} is to be reached without TLS by {scheme}://, and with TLS by "
                    "the options: write rediss://, or leave these options out"
                )
        rest = {key: fields[key] for key in fields.keys() - _PARTS}
        if _SCHEMES[scheme]:
            own = {key: rest.pop(key) for key in list(rest) if key.startswith("ssl_")}
            base = tls or TLS()
            address = replace(address, tls=TLS({**base.options, **own}, base.context))
        return _with_options(address, rest)


def _with_options(address: NodeAddress, given: Mapping[str, Any]) -> NodeAddress:
    known = {"db", *_OURS, *redis_py.option_names()}
    if strange := sorted(given.keys() - known):
        raise InvalidOptionError(
            f"{address.name} has unknown options {[_shown(one) for one in strange]}; "
            f"known are {sorted({'user', 'password', 'tls', 'address_remap', *known})}"
        )
    rest = {**given, **address.options}
    if "db" in rest:
        database = _database(rest.pop("db"), "")
        address = replace(address, database=address.database or database)
    for name in _OURS & rest.keys():
        value = rest.pop(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise InvalidOptionError(f"{name}={value!r} of a node must be a number above 0")
        address = replace(address, **{name: type(getattr(address, name))(value)})
    return replace(address, options=rest)


def _tls(given: dict[str, Any], tls: TLS | ssl.SSLContext | bool | None) -> TLS | None:
    """Return what the options say of TLS, and remove it from them; None for no TLS."""
    options = {name: given.pop(name) for name in list(given) if name.startswith("ssl_")}
    wanted = given.pop("ssl", tls) if tls is None else tls
    if wanted is False:
        return None
    if wanted is None or wanted is True:
        return TLS(options) if options or wanted else None
    if isinstance(wanted, TLS):
        return TLS({**wanted.options, **options}, wanted.context)
    import ssl

    if not isinstance(wanted, ssl.SSLContext):
        raise InvalidOptionError(
            f"tls= must be True, False or an ssl.SSLContext, not {type(wanted).__name__}"
        )
    return TLS(options, wanted)


def _database(given: Any, path: str) -> int:
    text = str(given) if given is not None else path.strip("/")
    if not text:
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


def host_and_port(name: str) -> tuple[str, int] | None:
    """Return host and port of a node that another node names; None if that is no address.

    Such a name is data, and is shown to people: it consists of plain characters.
    """
    found = _NAMED.fullmatch(name)
    if found is None or not 0 < int(found["port"]) < 65_536:
        return None
    return found["v6"] or found["host"], int(found["port"])


def _unescaped() -> InvalidOptionError:
    return InvalidOptionError(
        "the user and password in the URL of a node must have / ? # and @ written as "
        "%2F %3F %23 and %40"
    )


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
