"""Who may see the page and who may change something.

A page on the loopback can be reached by every site that the user's browser shows, by a name that
resolves to 127.0.0.1: so a request must be addressed to a name that is known here. What changes
something, and what is served beyond the loopback, needs the token besides.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from ipaddress import ip_address

from memories.errors import InvalidOptionError


class Auth:
    """Judges requests by their headers.

    Args:
        host: The address that is listened on.
        token: What a request that changes something must show; None forbids all of them.
        hosts: Names that a request may be addressed to, besides addresses and `localhost`.

    Raises:
        InvalidOptionError: the address is not the loopback's, and there is no token.
    """

    def __init__(self, host: str, token: str | None, hosts: Collection[str] = ()) -> None:
        self._token = token
        self._hosts = {name.lower() for name in hosts}
        self._open = is_loopback(host)
        if not self._open and not token:
            raise InvalidOptionError(
                f"host={host!r} lets other machines see the keys; give a token=, which they will "
                "need, or stay on 127.0.0.1"
            )

    @property
    def may_act(self) -> bool:
        """Return whether anybody may change anything."""
        return self._token is not None

    def knows(self, host_header: str) -> bool:
        """Return whether a request is addressed to a name that nobody else could have made up."""
        name = host_header.lower()
        if name.startswith("["):
            name, closed, _ = name[1:].partition("]")
            return bool(closed) and _is_address(name)
        name = name.partition(":")[0]
        return "*" in self._hosts or name in self._hosts or name == "localhost" or _is_address(name)

    def admits(self, headers: Mapping[str, str], query: Mapping[str, str], *, act: bool) -> bool:
        """Return whether a request may see what it asks for, or with `act` change it."""
        if self._open and not act:
            return True
        shown = headers.get("authorization", "").removeprefix("Bearer ") or query.get("token", "")
        return bool(self._token) and hmac.compare_digest(shown.encode(), str(self._token).encode())


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`."""
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
