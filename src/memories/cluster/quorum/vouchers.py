"""Says which members may get the credentials of a manager, if its caller did not name them.

The member list is data that anyone with access to one node can write. A manager that knows a member
only from there would send its password wherever the list says. So each manager vouches, with the
user's key, for the members that its caller has named; another one sends its credentials to these,
and to members for which a key that it trusts has vouched. The rest are not connected to.

A voucher holds for thirty days, and a manager renews those of its user for as long as the member is
in the list: a host that has left, and is put back by someone else, gets nothing after that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, NoReturn

import msgspec

from memories.cluster.client.address import NodeAddress
from memories.errors import StorageError
from memories.foundation.logging import logger

VOUCHERS_KEY = b"m:vouchers"
VALID_SECONDS = 30 * 86_400.0
_RENEW_SECONDS = VALID_SECONDS / 2  # What is left of a voucher when it is renewed.
_DOMAIN = b"memories member 2\0"
_MOST_BYTES = 4 << 20  # On one node; more than thousands of members need.
_MOST_KEYS = 64  # Whose vouchers for one member are read.


class VoucherKeys(NamedTuple):
    """The keys of the user.

    Attributes:
        own: Returns the name of the key that signs, which is made if there is none.
        attest: Signs a message with it.
        attested: Whether a trusted key has made a signature of a message.
    """

    own: Callable[[], str]
    attest: Callable[[bytes], bytes]
    attested: Callable[[bytes, str, bytes], bool]


def _refuse(message: bytes = b"") -> NoReturn:
    raise StorageError(f"there is no key to sign {len(message)} bytes")


NO_KEYS = VoucherKeys(_refuse, _refuse, lambda message, key, mac: False)

Voucher = tuple[int, bytes]  # Until when it holds, in seconds since the epoch, and its signature.

# By member and by the name of the key that vouches for it.
Signatures = Mapping[str, Mapping[str, Voucher]]


class Vouchers:
    """The members that may get the credentials of `template`, besides those that are named."""

    def __init__(self, template: NodeAddress, keys: VoucherKeys, wall: Callable[[], float]) -> None:
        self._template = template
        self._keys = keys
        self._wall = wall
        self._accepted: dict[str, int] = {}  # Until when.

    @property
    def matter(self) -> bool:
        """Return whether there is anything to keep secret."""
        return bool(self._template.secrets)

    def learn(self, signatures: Signatures, names: Iterable[str]) -> None:
        """Check what a node has for members, unless a voucher that holds longer is known."""
        for name in names:
            for key, voucher in list(signatures.get(name, {}).items())[:_MOST_KEYS]:
                if voucher[0] > self._accepted.get(name, 0) and self._holds(name, key, voucher):
                    self._accepted[name] = voucher[0]

    def accept(self, name: str) -> bool:
        """Return whether a member may get the credentials."""
        return not self.matter or self._accepted.get(name, 0) > self._wall()

    def missing(
        self, signatures: Signatures, members: Iterable[str], named: Collection[str]
    ) -> dict[str, dict[str, Voucher]]:
        """Return our vouchers for `members` that a node should have, and does not.

        Those for `named` members are made; those for others are renewed, if the node has one of our
        key that still holds.
        """
        made: dict[str, dict[str, Voucher]] = {}
        if not self.matter:
            return made
        now = self._wall()
        try:
            own = self._keys.own()
            for name in members:
                voucher = signatures.get(name, {}).get(own)
                holds = voucher is not None and self._holds(name, own, voucher)
                if holds and voucher is not None and voucher[0] > now + _RENEW_SECONDS:
                    continue
                if holds or name in named:
                    until = int(now + VALID_SECONDS)
                    made[name] = {own: (until, self._keys.attest(self._message(name, until)))}
        except StorageError as error:
            logger.debug("no more vouchers are made: %s", error)
        return made

    def pack(self, present: Signatures, added: Signatures, members: Iterable[str]) -> bytes:
        """Return both as a node stores them: what has not expired, for `members` only."""
        now = self._wall()
        both = {
            name: {**present.get(name, {}), **added.get(name, {})}
            for name in members
            if name in present or name in added
        }
        return msgspec.msgpack.encode(
            {
                name: {key: voucher for key, voucher in signed.items() if voucher[0] > now}
                for name, signed in both.items()
            }
        )

    def _holds(self, name: str, key: str, voucher: Voucher) -> bool:
        until, mac = voucher
        left = until - self._wall()
        # None is made for longer; a clock that was wrong when it was made must not count for ever.
        if not 0 < left <= 2 * VALID_SECONDS:
            return False
        return self._keys.attested(self._message(name, until), key, mac)

    def _message(self, name: str, until: int) -> bytes:
        """Return what is signed: a member, the credentials that it may get, and until when."""
        parts = msgspec.msgpack.encode(self._template.secrets)
        return _DOMAIN + msgspec.msgpack.encode([name, hashlib.sha256(parts).digest(), until])


def read_vouchers(data: bytes | None) -> Signatures:
    """Return what a node stores; nothing if that is missing, damaged or too large."""
    if not data or len(data) > _MOST_BYTES:
        return {}
    try:
        return msgspec.msgpack.decode(data, type=dict[str, dict[str, Voucher]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
