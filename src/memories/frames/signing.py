"""Sign values that carry code, and verify their signatures against trusted keys.

The keys are stored apart from the data, so that write access to a disk or a bucket is not enough to
make a reader run code. Typed values need no signature; nothing is encrypted here.
"""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from memories.errors import InvalidOptionError, StorageError, UntrustedDataError
from memories.foundation.fork_lock import new_lock
from memories.foundation.printable import printable
from memories.foundation.regular_file import Found, open_regular, read_regular
from memories.foundation.system import sync
from memories.foundation.user_directories import config_directory
from memories.frames.store_binding import IDENTITY_NAME, UNBOUND, Signature, StoreBinding

ENVIRONMENT = "MEMORIES_KEY_FILE"
_DOMAIN = b"memories frame 1\0"
_BOUND_DOMAIN = b"memories store 1\0"
_MARK = "memories-key-1"
_SECRET_NBYTES = 32
_MAX_FILE_BYTES = 1 << 20


class Key(NamedTuple):
    """A secret with which values are signed and checked."""

    secret: bytes

    @property
    def id(self) -> str:
        """Return the public name of the key, which does not reveal the secret."""
        import hashlib  # Imported at use: it loads a library of 5 MB, and few values are signed.

        return hashlib.sha256(b"memories key id\0" + self.secret).hexdigest()[:16]

    @property
    def text(self) -> str:
        """Return the key as one line of text, which must stay secret: it can sign in your name."""
        return f"{_MARK}:{base64.urlsafe_b64encode(self.secret).decode()}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Return the key in a line of text.

        Raises:
            InvalidOptionError: the text is not a key; the message does not repeat it.
        """
        mark, _, body = text.strip().partition(":")
        try:
            secret = base64.urlsafe_b64decode(body.encode("ascii"))
        except (ValueError, UnicodeEncodeError):
            secret = b""
        if mark != _MARK or len(secret) != _SECRET_NBYTES:
            raise InvalidOptionError(
                f"this text is not a key: a key is one line that begins with {_MARK}: "
                "(run `memories key export` where the values were written)"
            )
        return cls(secret)

    def __repr__(self) -> str:
        return f"<Key {self.id}>"


class Keyring:
    """The keys of a user: the first signs, all are trusted. Safe to use from many threads.

    Args:
        path: The file with one key a line; by default `$MEMORIES_KEY_FILE`, else `keys` in the
            user's configuration directory. It is created, readable by its owner only, when
            something is first signed.
        trusted: More keys to trust, as `Key` or as text. None of them signs.

    Attributes:
        binding: The store that values are signed for, and whose values are read; without it they
            are signed for none, and those of every store are read.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, trusted: Iterable[Key | str] = ()
    ) -> None:
        self.path = (
            Path(path) if path is not None else default_path()
        )  # None: the process has no home.
        self._extra = tuple(Key.parse(key) if isinstance(key, str) else key for key in trusted)
        self._keys: tuple[Key, ...] | None = None
        self._lock = new_lock()
        self.binding: StoreBinding | None = None

    def sign(self, message: bytes) -> Signature:
        """Sign `message` with the user's own key, creating it first if there is none."""
        store = UNBOUND if self.binding is None else self.binding.own
        return self.attest(_bound(message, store))._replace(store=store)

    def attest(self, message: bytes) -> Signature:
        """Sign a message that is bound to no store."""
        key = self._own_key()
        return Signature(key.id, _mac(key, message))

    def own_id(self) -> str:
        """Return the name of the user's own key, creating it first if there is none."""
        return self._own_key().id

    def attested(self, message: bytes, signature: Signature) -> bool:
        """Return whether a trusted key signed a message that is bound to no store."""
        key = self._key_named(signature.key_id)
        import hmac

        return key is not None and hmac.compare_digest(_mac(key, message), signature.mac)

    @property
    def can_sign(self) -> bool:
        """Return whether the user has a key already."""
        return bool(self._read())

    def for_nodes(self) -> Keyring:
        """Return a keyring with the same keys for values on nodes, which many stores share."""
        ring = Keyring(self.path, trusted=self._extra)
        ring.binding = StoreBinding(ring, _OfNodes())
        return ring

    def verify(self, message: bytes, signature: Signature, what: str = "the value") -> None:
        """Return if a trusted key has signed exactly this message; `what` names it in errors.

        Raises:
            UntrustedDataError: no trusted key has; the message says how to trust on purpose.
        """
        if not signature.key_id:
            raise UntrustedDataError(
                f"{what} would run code when read, and is not signed: if you know who wrote it, "
                "have it stored again by a manager, which signs it"
            )
        key = self._key_named(signature.key_id)
        if key is not None:
            signed = _bound(message, signature.store)
            import hmac

            if not hmac.compare_digest(_mac(key, signed), signature.mac):
                raise UntrustedDataError(
                    f"{what} would run code when read, and was altered after key {key.id} "
                    "signed it: do not trust it"
                )
            if self.binding is not None and not self.binding.accepts(signature.store):
                raise UntrustedDataError(_of_another_store(what, signature.store))
            return
        raise UntrustedDataError(
            f"{what} would run code when read, and was signed by key "
            f"{printable(signature.key_id, 32)}, which is not trusted here: if you trust its "
            "owner, run `memories key export` there and `memories key import` here, or pass the "
            "key in trusted_keys="
        )

    def export(self) -> str:
        """Return the user's own key as text, creating it if there is none."""
        return self._own_key().text

    def trust(self, text: str) -> Key:
        """Add a key to the file, as one that is trusted but does not sign. Idempotent."""
        key = Key.parse(text)
        own = self._own_key()
        if key != own and key not in self._read():
            _append(self._home(), key)
            self._keys = None
        return key

    def keys(self) -> tuple[Key, ...]:
        """Return all trusted keys; the first of the file is the one that signs."""
        return (*self._read(), *self._extra)

    def _key_named(self, key_id: str) -> Key | None:
        """Return a trusted key; the file is read again for one that it did not have before."""
        for attempt in range(2):
            for key in self.keys():
                if key.id == key_id:  # An id is public, and may be any text in a frame.
                    return key
            if attempt == 0:
                self._keys = None
        return None

    def _own_key(self) -> Key:
        with self._lock:
            keys = self._read()
            if not keys:
                _create(self._home(), Key(os.urandom(_SECRET_NBYTES)))
                self._keys = None
                keys = self._read()
            return keys[0]

    def _home(self) -> Path:
        if self.path is None:
            raise StorageError(
                "there is nowhere to keep the signing key: this process has no home directory "
                f"(no HOME, and no entry for its user): set {ENVIRONMENT} to a file of yours"
            )
        return self.path

    def _read(self) -> tuple[Key, ...]:
        if self.path is None:
            return ()
        if self._keys is None:
            try:
                found = read_regular(self.path, limit=_MAX_FILE_BYTES, links=True)
                text = found.data.decode("ascii")
            except FileNotFoundError:
                return ()
            except (OSError, UnicodeDecodeError) as error:
                raise StorageError(f"the key file {self.path} cannot be read: {error}") from error
            _require_private(self.path, found)
            self._keys = tuple(Key.parse(line) for line in text.splitlines() if line.strip())
        return self._keys


def default_path() -> Path | None:
    """Return the path of the user's keys; None for a process without a home."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen)
    directory = config_directory()
    return None if directory is None else directory / "keys"


_default: dict[Path | None, Keyring] = {}


def default() -> Keyring:
    """Return the keyring of the user, as the environment names it now."""
    path = default_path()
    return _default.setdefault(path, Keyring(path))


def message(
    key: str, version: int, codec: str, meta: bytes | memoryview, buffers: Sequence[memoryview]
) -> bytes:
    """Return the signed message: the identity of a value, and the digests of its parts."""
    import hashlib

    digests = [hashlib.sha256(piece).digest() for piece in (meta, *buffers)]
    return _DOMAIN + msgspec.msgpack.encode([key, version, codec, digests])


class _OfNodes:
    """The identity of all nodes: what they hold is read nowhere else, and they hold nothing else.

    Which keys and nodes a manager reads is its caller's choice, and not a part of the identity:
    members change, and so do their addresses.
    """

    def statement(self, name: str) -> bytes | None:
        """Return the identity."""
        return b"memories nodes 1" if name == IDENTITY_NAME else None

    def put_statement(self, name: str, data: bytes) -> None:
        """Refuse: no values of other stores are on nodes."""
        raise StorageError(f"nodes take no statement {name!r} of {len(data)} bytes")

    def statements(self) -> list[str]:
        """Return no names."""
        return []


def _bound(message: bytes, store: bytes) -> bytes:
    """Return what is signed for one store; the message itself for none."""
    return message if store == UNBOUND else _BOUND_DOMAIN + msgspec.msgpack.encode([store, message])


def _of_another_store(what: str, store: bytes) -> str:
    if store == UNBOUND:
        return (
            f"{what} would run code when read, and was signed before values were bound to their "
            "store: open the store that it was stored in, and store it again"
        )
    return (
        f"{what} would run code when read, and was signed for another store, {store.hex()[:32]}: "
        "it was copied here without a snapshot or an archive of that store; if you trust it, "
        "restore a snapshot of that store here"
    )


def _require_private(path: Path, found: Found) -> None:
    """Refuse keys that another user can have written, or has read: they would prove nothing."""
    if not found.is_trusted:
        raise StorageError(
            f"the key file {path} belongs to another user (id {found.owner}) and is not trusted: "
            f"set {ENVIRONMENT} to a file of yours"
        )
    if found.mode & 0o077:
        raise StorageError(
            f"the key file {path} is open to other users (mode {found.mode:03o}): run "
            f"`chmod 600 {path}` if no other user has had access, or remove it to get a new key"
        )


def _mac(key: Key, message: bytes) -> bytes:
    import hmac

    return hmac.digest(key.secret, message, "sha256")


def _create(path: Path, key: Key) -> None:
    """Write a new key file unless another process was faster; never half of one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        _write_draft(draft, key)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # Another process was faster: its key is the user's key.
        finally:
            draft.unlink()
    except OSError as error:
        raise StorageError(
            f"the signing key cannot be created at {path}: {error.strerror}; set {ENVIRONMENT} to "
            "a file in a directory of yours"
        ) from error


def _append(path: Path, key: Key) -> None:
    """Add a line to the key file; all of it, or none if there is no room for it."""
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND, links=True)
        try:
            line = f"\n{key.text}\n".encode()  # The line before may lack its end.
            written = os.write(descriptor, line)
            if written != len(line):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"the key file {path} cannot be written: {error.strerror}") from error


def _write_draft(path: Path, key: Key) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, f"{key.text}\n".encode())
        sync(descriptor)
    finally:
        os.close(descriptor)
