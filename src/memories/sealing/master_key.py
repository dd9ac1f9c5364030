"""Master keys: where they come from, and how they wrap the data keys that encrypt.

A master key has a name, and a secret for each of its versions; the newest wraps. Its text is read
when a store is opened or its keys are rotated, and is not kept.
"""

from __future__ import annotations

import base64
import errno
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from memories.errors import EncryptionKeyError, InvalidOptionError
from memories.foundation import optional_imports
from memories.foundation.regular_file import open_regular, read_regular
from memories.foundation.system import sync
from memories.sealing.blob import EXTRA, SECRET_BYTES, DataKey

MARK = "memories-master-key-1"
Wrap = Callable[[bytes, Mapping[str, str]], bytes]
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_FILE_BYTES = 1 << 20
_MAX_VERSION = 1_000_000
_COMMAND_SECONDS = 60.0
_NONCE_BYTES = 12
_DOMAIN = b"memories data key 1\0"


class MasterSecret(NamedTuple):
    """One version of a master key."""

    name: str
    version: int
    secret: bytes

    @classmethod
    def new(cls, name: str, version: int = 1) -> Self:
        """Return a random one.

        Raises:
            InvalidOptionError: the name is not valid.
        """
        if not _NAME.fullmatch(name):
            raise InvalidOptionError(
                f"{name!r:.80} cannot be the name of a key: give 1 to 64 letters, digits and . _ -"
            )
        return cls(name, version, os.urandom(SECRET_BYTES))

    @property
    def text(self) -> str:
        """Return it as one line of text, which must stay secret."""
        secret = base64.urlsafe_b64encode(self.secret).decode()
        return f"{MARK}:{self.name}:{self.version}:{secret}"

    def __repr__(self) -> str:
        return f"<MasterSecret {self.name} version {self.version}>"


class WrappedKey(NamedTuple):
    """A data key, encrypted with one version of a master key."""

    id: bytes
    name: str  # Of the master key.
    version: int
    data: bytes


class TextSource(NamedTuple):
    """Where the text of a master key is read: a file, a variable, or the output of a command."""

    kind: str
    where: tuple[str, ...]

    def read(self) -> str:
        """Return the text.

        Raises:
            EncryptionKeyError: it cannot be read.
        """
        if self.kind == "env":
            text = os.environ.get(self.where[0])
            if text is None:
                raise EncryptionKeyError(
                    f"the environment variable {self.where[0]} with the encryption key is not set"
                )
            return text
        return _read_file(Path(self.where[0])) if self.kind == "file" else _output_of(self.where)

    def secrets(self) -> dict[int, MasterSecret]:
        """Return the secrets by their version.

        Raises:
            EncryptionKeyError: the text cannot be read, or is not that of one master key.
        """
        lines = [line.strip() for line in self.read().splitlines()]
        found = [self._parsed(line) for line in lines if line and not line.startswith("#")]
        if not found:
            raise EncryptionKeyError(f"{self} holds no key: run `memories key generate`")
        if len({one.name for one in found}) > 1 or len({one.version for one in found}) < len(found):
            raise EncryptionKeyError(
                f"{self} holds more than the versions of one key: use a text for each key"
            )
        return {one.version: one for one in found}

    def _parsed(self, line: str) -> MasterSecret:
        mark, *fields = line.split(":")
        try:
            name, version, body = fields
            secret = base64.b64decode(body.encode("ascii"), b"-_", validate=True)
            number = int(version)
        except ValueError:
            mark, name, number, secret = "", "", 0, b""
        sound = len(secret) == SECRET_BYTES and 0 < number <= _MAX_VERSION
        if mark != MARK or not sound or not _NAME.fullmatch(name):
            raise EncryptionKeyError(
                f"{self} is not the text of a key, whose lines begin with {MARK}: (run `memories "
                "key generate`)"
            )
        return MasterSecret(name, number, secret)

    def __str__(self) -> str:
        return f"{self.kind}:{' '.join(self.where[:1])}"


class KeyService(NamedTuple):
    """A key management service, which keeps the master key to itself."""

    name: str
    version: int
    wrap: Wrap
    unwrap: Wrap

    def __str__(self) -> str:
        return f"the key service {self.name!r}"

    def __repr__(self) -> str:
        return f"<KeyService {self.name} version {self.version}>"


class EncryptionKey:
    """A master key for `encryption=`, and where it comes from.

    Use `from_file`, `from_env`, `from_command` or `from_kms`. The secret is read when it is needed:
    neither this object nor a pickle of a manager holds it.
    """

    def __init__(self, source: TextSource | KeyService) -> None:
        self._source = source

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> EncryptionKey:
        """Return the key in a file, as `memories key generate` makes it; only you may read it."""
        return cls(TextSource("file", (str(Path(path).expanduser().absolute()),)))

    @classmethod
    def from_env(cls, name: str) -> EncryptionKey:
        """Return the key whose text is in an environment variable."""
        return cls(TextSource("env", (name,)))

    @classmethod
    def from_command(cls, arguments: Sequence[str]) -> EncryptionKey:
        """Return the key whose text a command prints; it is run without a shell."""
        if isinstance(arguments, str) or not arguments:
            raise InvalidOptionError(
                f"a command is a list of a program and its arguments, not {arguments!r:.80}"
            )
        return cls(TextSource("command", tuple(map(str, arguments))))

    @classmethod
    def from_kms(cls, name: str, *, wrap: Wrap, unwrap: Wrap, version: int = 1) -> EncryptionKey:
        """Return a key that never leaves a key management service.

        Args:
            name: What the key is called in errors and by `memories key list`.
            wrap: Called with a secret of 32 bytes and a context, a dict of texts; returns the
                secret encrypted. It should bind that to the context, as AWS KMS does.
            unwrap: Called with what `wrap` returned and with the same context; returns the secret.
            version: Raise it when the service has a new key: `rotate_key` then wraps with that.
        """
        return cls(KeyService(name, version, wrap, unwrap))

    @classmethod
    def parse(cls, value: object) -> EncryptionKey | None:
        """Return the key that `encryption=` names: `"file:PATH"`, `"env:NAME"`, a key, or None.

        Raises:
            InvalidOptionError: it is none of these. The message repeats no secret.
        """
        if value is None or isinstance(value, EncryptionKey):
            return value
        kind, _, rest = value.partition(":") if isinstance(value, str) else ("", "", "")
        if kind == "file" and rest:
            return cls.from_file(rest)
        if kind == "env" and rest:
            return cls.from_env(rest)
        raise InvalidOptionError(
            "encryption= must be 'file:PATH', 'env:NAME' or an EncryptionKey, and never the key "
            "itself: it says where the key is"
        )

    def newest(self) -> tuple[str, int]:
        """Return the name and the version that wrap.

        Raises:
            EncryptionKeyError: the key cannot be read.
        """
        source = self._source
        if isinstance(source, KeyService):
            return source.name, source.version
        newest = max(source.secrets().values(), key=lambda one: one.version)
        return newest.name, newest.version

    def derive(self, label: bytes) -> bytes | None:
        """Return 64 secret bytes that follow from the oldest version; None from a key service.

        Raises:
            EncryptionKeyError: the key cannot be read.
        """
        import hmac  # Imported at use, as in `frames.signing`.

        if isinstance(self._source, KeyService):
            return None
        secrets = self._source.secrets()
        oldest = secrets[min(secrets)]
        return hmac.digest(oldest.secret, oldest.name.encode() + b"\0" + label, "sha512")

    def wrap(self, key: DataKey, place: bytes) -> WrappedKey:
        """Return a data key, wrapped for one place by the newest version.

        Raises:
            EncryptionKeyError: the key cannot be read, or the service failed.
        """
        source = self._source
        if isinstance(source, KeyService):
            data = _asked(source, source.wrap, key.secret, _context(key.id, place))
            return WrappedKey(key.id, source.name, source.version, data)
        newest = max(source.secrets().values(), key=lambda one: one.version)
        nonce = os.urandom(_NONCE_BYTES)
        bound = _bound(key.id, newest.name, newest.version, place)
        data = nonce + _cipher(newest.secret).encrypt(nonce, key.secret, bound)
        return WrappedKey(key.id, newest.name, newest.version, data)

    def unwrap(self, wrapped: WrappedKey, place: bytes) -> DataKey:
        """Return the data key that was wrapped for a place.

        Raises:
            EncryptionKeyError: this is not the key that wrapped it, or not this version of it.
        """
        source = self._source
        if isinstance(source, KeyService):
            if source.name != wrapped.name:
                raise _another(wrapped, str(source))
            data = _asked(source, source.unwrap, wrapped.data, _context(wrapped.id, place))
            return DataKey(wrapped.id, data)
        secrets = source.secrets()
        names = {one.name for one in secrets.values()}
        if wrapped.name not in names:
            raise _another(wrapped, f"{source} holds {', '.join(map(repr, names))}")
        known = secrets.get(wrapped.version)
        if known is None:
            versions = ", ".join(map(str, sorted(secrets)))
            raise EncryptionKeyError(
                f"the data are encrypted with version {wrapped.version} of the key "
                f"{wrapped.name!r}, and {source} holds version {versions}: give a text that holds "
                "that version, too"
            )
        bound = _bound(wrapped.id, wrapped.name, wrapped.version, place)
        nonce, data = wrapped.data[:_NONCE_BYTES], wrapped.data[_NONCE_BYTES:]
        aesgcm, invalid = _cipher(known.secret), _invalid_tag()
        try:
            return DataKey(wrapped.id, aesgcm.decrypt(nonce, data, bound))
        except (invalid, ValueError) as error:
            raise EncryptionKeyError(
                f"{source} is called {wrapped.name!r} and has version {wrapped.version}, but is "
                "not the key with which the data were encrypted, or their key file was altered"
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EncryptionKey) and self._source == other._source

    def __hash__(self) -> int:
        return hash(self._source)

    def __repr__(self) -> str:
        return f"<EncryptionKey {self._source}>"


def create_file(path: Path, name: str) -> MasterSecret:
    """Write a new master key to a new file, for its owner only.

    Raises:
        InvalidOptionError: the name is not valid.
        EncryptionKeyError: the file is there already, or cannot be written.
    """
    made = MasterSecret.new(name)
    _write(path, made, os.O_CREAT | os.O_EXCL)
    return made


def append_version(path: Path) -> MasterSecret:
    """Add a new version to the master key in a file; the older ones stay, to unwrap.

    Raises:
        EncryptionKeyError: the file holds no key, or cannot be written.
    """
    found = TextSource("file", (str(path),)).secrets()
    newest = found[max(found)]
    made = MasterSecret.new(newest.name, newest.version + 1)
    _write(path, made, os.O_APPEND)
    return made


def _write(path: Path, made: MasterSecret, flags: int) -> None:
    """Write one line to a key file, whole and synced."""
    try:
        descriptor = open_regular(path, os.O_WRONLY | flags, links=True)
        try:
            line = f"\n{made.text}\n".encode()  # The line before may lack its end.
            start = os.fstat(descriptor).st_size
            if os.write(descriptor, line) != len(line):
                os.ftruncate(descriptor, start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(descriptor)
        finally:
            os.close(descriptor)
    except FileExistsError as error:
        raise EncryptionKeyError(
            f"{path} is there already, and is not overwritten: what it encrypts would be lost; "
            "`memories key generate --add` adds a new version to it"
        ) from error
    except OSError as error:
        raise EncryptionKeyError(
            f"the encryption key {path} cannot be written: {error.strerror}"
        ) from error


def _another(wrapped: WrappedKey, given: str) -> EncryptionKeyError:
    return EncryptionKeyError(
        f"the data are encrypted with the key {wrapped.name!r}, and another one was given: {given}"
    )


def _context(identity: bytes, place: bytes) -> dict[str, str]:
    return {"memories-data-key": identity.hex(), "memories-place": place.hex()}


def _bound(identity: bytes, name: str, version: int, place: bytes) -> bytes:
    """Return what a wrapped data key is bound to."""
    return b"".join((_DOMAIN, identity, version.to_bytes(8, "little"), place, name.encode()))


def _asked(source: KeyService, ask: Wrap, data: bytes, context: Mapping[str, str]) -> bytes:
    """Return the answer of a key service."""
    try:
        found = ask(data, context)
    except Exception as error:  # Whatever the client of the service raises.
        raise EncryptionKeyError(f"{source} failed: {error}") from error
    wanted = ask is source.wrap or len(found) == SECRET_BYTES
    if not isinstance(found, bytes) or not found or not wanted:
        raise EncryptionKeyError(f"{source} returned something else than what it was asked for")
    return found


def _cipher(secret: bytes) -> Any:
    name = "cryptography.hazmat.primitives.ciphers.aead"
    return optional_imports.require(name, extra=EXTRA).AESGCM(secret)


def _invalid_tag() -> type[Exception]:
    found: type[Exception] = optional_imports.require(
        "cryptography.exceptions", extra=EXTRA
    ).InvalidTag
    return found


def _read_file(path: Path) -> str:
    """Return the text of a key file that only this user may open."""
    try:
        found = read_regular(path, limit=_MAX_FILE_BYTES, links=True)
    except OSError as error:
        raise EncryptionKeyError(
            f"the encryption key {path} cannot be read: {error.strerror}"
        ) from error
    if not found.is_trusted:
        raise EncryptionKeyError(f"the encryption key {path} belongs to another user")
    if found.mode & 0o077:
        raise EncryptionKeyError(
            f"the encryption key {path} is open to other users (mode {found.mode:03o}): run "
            f"`chmod 600 {path}` if no other user has had access, or rotate to a new key"
        )
    return _decoded(found.data, str(path))


def _output_of(command: Sequence[str]) -> str:
    """Return what a command prints."""
    import subprocess  # Imported at use: few keys come from a command.

    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True,
            timeout=_COMMAND_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise EncryptionKeyError(
            f"the command {command[0]!r} did not print the encryption key: {reason}"
        ) from error
    return _decoded(done.stdout, f"what {command[0]!r} printed")


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise EncryptionKeyError(f"{what} is not the text of an encryption key") from error
