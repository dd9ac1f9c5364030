"""Decides which requests may read the dashboard and which may change something.

Any website in the user's browser can send requests to the loopback address, through a host name
that resolves to 127.0.0.1 (DNS rebinding). So a request must be addressed to a known host name. A
request that changes something, or that comes from another machine, needs the token as well.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from ipaddress import ip_address

from memories.errors import InvalidOptionError


class Auth:
    """Checks requests by their headers.

    Args:
        host: The address that the server listens on.
        token: The token of requests that change something; None refuses all of them.
        hosts: Allowed host names besides addresses and `localhost`.

    Raises:
        InvalidOptionError: the address is not the loopback's, and no token was given.
    """

    def __init__(self, host: str, token: str | None, hosts: Collection[str] = ()) -> None:
        self._token = token
        self._hosts = {name.lower() for name in hosts}
        self._open = is_loopback(host)
        if not self._open and not token:
            raise InvalidOptionError(
                f"host={host!r} lets other machines see the keys: give a token=, which they then "
                "need, or listen on 127.0.0.1"
            )

    @property
    def may_act(self) -> bool:
        """Return whether there is a token, so that requests can change something."""
        return self._token is not None

    def knows(self, host_header: str) -> bool:
        """Return whether the host name of a request is allowed."""
        name = host_header.lower()
        if name.startswith("["):
            name, closed, _ = name[1:].partition("]")
            return bool(closed) and _is_address(name)
        name = name.partition(":")[0]
        return "*" in self._hosts or name in self._hosts or name == "localhost" or _is_address(name)

    def admits(self, headers: Mapping[str, str], query: Mapping[str, str], *, act: bool) -> bool:
        """Return whether a request may read, or with `act` change something."""
        if self._open and not act:
            return True
        shown = headers.get("authorization", "").removeprefix("Bearer ") or query.get("token", "")
        return bool(self._token) and hmac.compare_digest(shown.encode(), str(self._token).encode())


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
