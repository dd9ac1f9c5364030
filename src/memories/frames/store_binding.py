"""Binds signed values to the store that signed them, and says whose values a store accepts.

A store accepts what it signed itself, and what was signed for the stores of which it has a
statement, made when a snapshot or an archive of theirs was taken in. A statement is signed, so that
write access to a store is not enough to add one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import msgspec

from memories.errors import MemoriesError, StorageError
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger

IDENTITY_NBYTES = 16
UNBOUND = b""  # The store of values that were signed before they were bound to one.
_DOMAIN = b"memories statement 1\0"
IDENTITY_NAME = "identity"
_UNBOUND_NAME = "unbound"
_DECODING_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Signature(NamedTuple):
    """The id of the key that signed, the HMAC-SHA256, and the store it was signed for."""

    key_id: str
    mac: bytes
    store: bytes = UNBOUND


class Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Says, signed by a key, that values of one store may be read in one place."""

    key_id: str
    mac: bytes


class Statements(Protocol):
    """Where the identity of a store or an archive is kept, and its statements, by name."""

    def statement(self, name: str) -> bytes | None:
        """Return what was kept under a name, None if nothing was."""

    def put_statement(self, name: str, data: bytes) -> None:
        """Keep `data` under a name, in the place of what is kept there."""

    def statements(self) -> list[str]:
        """Return all names."""


class StatementSigner(Protocol):
    """Signs statements, and checks who signed them; `signing.Keyring` implements it."""

    def attest(self, message: bytes) -> Signature:
        """Sign a message that is bound to no store."""

    def attested(self, message: bytes, signature: Signature) -> bool:
        """Return whether a trusted key signed a message that is bound to no store."""

    @property
    def can_sign(self) -> bool:
        """Return whether the user has a key already."""


class StoreBinding:
    """The identity of one store, and the other stores whose signed values it accepts.

    `places` are asked for statements in their order; the first is that of the store itself. Safe
    to use from many threads.
    """

    def __init__(self, signer: StatementSigner, own: Statements) -> None:
        self.places: list[Statements] = [own]
        self._signer = signer
        self._lock = new_lock()
        self._accepted: set[bytes] = set()
        self._own: bytes | None = None

    @property
    def own(self) -> bytes:
        """Return the identity of this store, `UNBOUND` if it is older than identities."""
        if self._own is None:
            self._own = _identity_of(self.places[0]) or UNBOUND
        return self._own

    def accepts(self, store: bytes) -> bool:
        """Return whether signed values of a store are read here."""
        if store == self.own or store in self._accepted:
            return True
        if store != UNBOUND and len(store) != IDENTITY_NBYTES:
            return False
        for place in self.places:
            identity, kept = _identity_of(place), place.statement(_name_of(store))
            if identity and kept is not None and self._holds(identity, store, kept):
                self._accepted.add(store)
                return True
        return False

    def state(self, place: Statements, store: bytes) -> None:
        """Keep in `place` that it may hold signed values of a store. Idempotent.

        Raises:
            StorageError: there is no key to sign with, or the place cannot be written.
        """
        with self._lock:
            if _identity_of(place) is None:
                place.put_statement(IDENTITY_NAME, os.urandom(IDENTITY_NBYTES))
            identity = _identity_of(place) or UNBOUND
            kept = place.statement(_name_of(store))
            if kept is None or not self._holds(identity, store, kept):
                place.put_statement(_name_of(store), _encode(self._sign(identity, store)))

    def identify(self) -> None:
        """Give an identity to a store that is older than identities, if this user has a key.

        What was signed for no store stays readable in it. That takes a signed statement: without a
        key the store stays as it is, since keys of others may have signed what is in it.
        """
        if not self._signer.can_sign:
            return
        place, identity = self.places[0], os.urandom(IDENTITY_NBYTES)
        place.put_statement(_UNBOUND_NAME, _encode(self._sign(identity, UNBOUND)))
        place.put_statement(
            IDENTITY_NAME, identity
        )  # After a crash before this, both are made anew.
        self._own = identity

    def accept(self, identity: bytes, stated: Iterable[tuple[bytes, Statement]]) -> None:
        """Accept the values of the stores that a snapshot of this identity states, if it may."""
        for store, statement in stated:
            if self.accepts(store) or not self._holds(identity, store, _encode(statement)):
                continue
            try:
                self.state(self.places[0], store)
            except StorageError as error:
                logger.warning(
                    "pickled objects of the snapshot can be read until this manager is closed, "
                    "and not after that: %s", error,
                )  # fmt: skip
            self._accepted.add(store)

    def state_all(self, identity: bytes) -> list[tuple[bytes, Statement]]:
        """Return statements for a snapshot of this identity, of all stores accepted here."""
        if not self._signer.can_sign:
            return []
        stores = {self.own} | self._accepted
        for place in self.places:
            try:
                names = place.statements()
            except MemoriesError as error:  # An archive that is away; its values are not read.
                logger.info("whose values an archive holds is unknown: %s", error)
                continue
            stores |= {found for name in names if (found := _store_of(name)) is not None}
        return [
            (store, self._sign(identity, store)) for store in sorted(stores) if self.accepts(store)
        ]

    def _sign(self, identity: bytes, store: bytes) -> Statement:
        signature = self._signer.attest(_message(identity, store))
        return Statement(signature.key_id, signature.mac)

    def _holds(self, identity: bytes, store: bytes, kept: bytes) -> bool:
        try:
            found = _decoder.decode(kept)
        except _DECODING_ERRORS:
            return False
        return self._signer.attested(_message(identity, store), Signature(found.key_id, found.mac))


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Statement)


def _message(identity: bytes, store: bytes) -> bytes:
    return _DOMAIN + _encode([identity, store])


def _identity_of(place: Statements) -> bytes | None:
    kept = place.statement(IDENTITY_NAME)
    return kept if kept is not None and len(kept) == IDENTITY_NBYTES else None


def _name_of(store: bytes) -> str:
    return store.hex() or _UNBOUND_NAME


def _store_of(name: str) -> bytes | None:
    if name == _UNBOUND_NAME:
        return UNBOUND
    try:
        store = bytes.fromhex(name)
    except ValueError:
        return None
    return store if len(store) == IDENTITY_NBYTES else None
