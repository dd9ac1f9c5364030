"""The content of values as a short text: equal for equal values of equal types, in any process.

This is neither the checksum of frames nor a cryptographic hash. A function counts by its code and
everything that it refers to, any other object by what pickle would store of it.
"""

from __future__ import annotations

from typing import Any

from memories.codecs.digests import hash_all
from memories.codecs.function_hash import (
    HashWalk,
    UnhashableReferenceError,
    Variable,
    is_caller_deep,
)
from memories.codecs.plain_hash import CONTAINERS, plain_hash
from memories.codecs.scalars import IMMUTABLE
from memories.codecs.value_hash import hash_value
from memories.compiled import mypyc_attr
from memories.errors import UnsupportedTypeError

_MAX_CLASSES = 512
_classes: dict[type, tuple[bytes, list[Variable]]] = {}  # Bounded: it keeps them alive.


@mypyc_attr(native_class=False)
class _ContainsItselfError(UnsupportedTypeError):
    """A value contains itself."""


def content_hash(*values: Any, code: bool = True) -> str:
    """Return 32 hexadecimal digits that depend on the types and contents of `values` only.

    The order of a mapping counts, the order of a set and the memory layout of an array do not.
    Tables, dataclasses and nested containers are hashed by their parts, functions by their code and
    what it refers to, everything else by what pickle would store of it. Without `code` functions
    and classes count by their names and files, and functions by the values they close over, too.

    Raises:
        UnsupportedTypeError: a value has no content to hash, or is nested too deeply.
        RecursionError: the stack is nearly used up.
    """
    try:
        try:
            digests = _digests_of(values, code)
        except _ContainsItselfError:
            walk = HashWalk(code=code)
            digests = [walk.finish(walk.digest(value)) for value in values]
    except UnhashableReferenceError as error:
        raise UnsupportedTypeError(str(error)) from error.__cause__
    except RecursionError as error:
        if is_caller_deep():
            raise
        raise UnsupportedTypeError("the arguments are nested too deeply to be hashed") from error
    return hash_all(b"args", digests).hex()


def _digests_of(values: tuple[Any, ...], code: bool) -> list[bytes]:
    hasher: _ValueHasher | None = None
    digests = []
    for value in values:
        digest = plain_hash(value) if type(value) in CONTAINERS else None
        if digest is None:
            hasher = hasher or _ValueHasher(code)
            digest = hasher.digest_by_parts(value)
        digests.append(digest)
    return digests


class _ValueHasher:
    """Hashes values by content; what two of them share does not count.

    Values that hold themselves are refused.
    """

    def __init__(self, code: bool) -> None:
        self._code = code
        self._open: set[int] = set()
        self._seen: dict[int, bytes] = {}
        self._alive: list[Any] = []  # An id means something only while its object lives.

    def digest(self, value: Any) -> bytes:
        """Return the hash of one value; an object that occurs twice is hashed once."""
        kind = type(value)
        if kind in CONTAINERS:
            plain = plain_hash(value)
            if plain is not None:
                return plain
        elif kind in IMMUTABLE:  # They hold nothing, least of all themselves.
            return hash_value(self, value)
        return self.digest_by_parts(value)

    def digest_by_parts(self, value: Any) -> bytes:
        """Return the hash of what is not plain, or not known to be."""
        identity = id(value)
        if identity in self._seen:
            return self._seen[identity]
        if identity in self._open:
            kind = type(value).__name__
            raise _ContainsItselfError(f"a {kind} that contains itself cannot be hashed")
        self._open.add(identity)
        digest = hash_value(self, value)
        self._open.remove(identity)
        self._alive.append(value)
        self._seen[identity] = digest
        return digest

    def digest_definition(self, value: Any) -> bytes:
        """Return the hash of a function or a class, complete in itself."""
        known = _classes.get(value) if self._code and isinstance(value, type) else None
        if known is not None and not any(variable.has_changed() for variable in known[1]):
            return known[0]
        walk = HashWalk(code=self._code)
        found = walk.finish(walk.digest(value))
        if self._code and isinstance(value, type):
            if len(_classes) >= _MAX_CLASSES:
                _classes.clear()
            _classes[value] = found, list(walk.variables.values())
        return found

    def digest_set_item(self, value: Any) -> bytes:
        """Return the hash of an item of a set."""
        return self.digest(value)
