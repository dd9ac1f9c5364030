"""Says which members may get the credentials of a manager, if its caller did not name them.

The member list is data that anyone with access to one node can write. A manager that knows a member
only from there would send its password wherever the list says. So each manager vouches, with the
user's key, for the members that its caller has named; another one sends its credentials to these,
and to members for which a key that it trusts has vouched. The rest are not connected to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from memories.cluster.client.address import NodeAddress
from memories.errors import StorageError
from memories.foundation.logging import logger

VOUCHERS_KEY = b"m:vouchers"
_DOMAIN = b"memories member 1\0"
_MOST_BYTES = 4 << 20  # On one node; more than thousands of members need.
_MOST_KEYS = 64  # Whose vouchers for one member are read.


class VoucherKeys(NamedTuple):
    """The keys of the user.

    Attributes:
        attest: Signs a message; returns the name of the key, and the signature.
        attested: Whether a trusted key has made a signature of a message.
    """

    attest: Callable[[bytes], tuple[str, bytes]]
    attested: Callable[[bytes, str, bytes], bool]


def _refuse(message: bytes) -> tuple[str, bytes]:
    raise StorageError(f"there is no key to sign {len(message)} bytes")


NO_KEYS = VoucherKeys(_refuse, lambda message, key, mac: False)

# By member and by the name of the key that vouches for it.
Signatures = Mapping[str, Mapping[str, bytes]]


class Vouchers:
    """The members that may get the credentials of `template`, besides those that are named."""

    def __init__(self, template: NodeAddress, keys: VoucherKeys) -> None:
        self._template = template
        self._keys = keys
        self._accepted: set[str] = set()

    @property
    def matter(self) -> bool:
        """Return whether there is anything to keep secret."""
        return bool(self._template.secrets)

    def learn(self, signatures: Signatures, names: Iterable[str]) -> None:
        """Check what a node has, for members without an accepted voucher."""
        for name in set(names) - self._accepted:
            signed = list(signatures.get(name, {}).items())[:_MOST_KEYS]
            message = self._message(name)
            if any(self._keys.attested(message, key, mac) for key, mac in signed):
                self._accepted.add(name)

    def accept(self, name: str) -> bool:
        """Return whether a member may get the credentials."""
        return not self.matter or name in self._accepted

    def missing(self, signatures: Signatures, named: Iterable[str]) -> dict[str, dict[str, bytes]]:
        """Return our signatures for the `named` members that a node does not have."""
        made: dict[str, dict[str, bytes]] = {}
        if self.matter:
            for name in named:
                try:
                    key, mac = self._keys.attest(self._message(name))
                except StorageError as error:
                    logger.debug("no voucher for %s: %s", name, error)
                    break
                if signatures.get(name, {}).get(key) != mac:
                    made[name] = {key: mac}
        return made

    def _message(self, name: str) -> bytes:
        """Return what is signed: a member, and the credentials that it may get."""
        parts = msgspec.msgpack.encode(self._template.secrets)
        return _DOMAIN + msgspec.msgpack.encode([name, hashlib.sha256(parts).digest()])


def read_vouchers(data: bytes | None) -> Signatures:
    """Return what a node stores; nothing if that is missing, damaged or too large."""
    if not data or len(data) > _MOST_BYTES:
        return {}
    try:
        return msgspec.msgpack.decode(data, type=dict[str, dict[str, bytes]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def pack_vouchers(present: Signatures, added: Signatures, members: Iterable[str]) -> bytes:
    """Return both as one, for `members` only."""
    both = {
        name: {**present.get(name, {}), **added.get(name, {})}
        for name in members
        if name in present or name in added
    }
    return msgspec.msgpack.encode(both)
