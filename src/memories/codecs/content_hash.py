"""The content of values as a short text: equal for equal values of equal types, in any process.

This is neither the checksum of frames nor a cryptographic hash. A function counts by its code and
everything that it refers to, any other object by what pickle would store of it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from memories.codecs.digests import hash_all
from memories.codecs.function_hash import (
    HashWalk,
    UnhashableReferenceError,
    Variable,
    is_caller_deep,
)
from memories.codecs.part_hash import hash_part
from memories.codecs.plain_hash import CONTAINERS, plain_hash
from memories.codecs.scalars import IMMUTABLE
from memories.codecs.value_hash import ABSENT, hash_other
from memories.compiled import mypyc_attr
from memories.errors import UnsupportedTypeError

_MAX_CLASSES: Final = 512
_IMMUTABLE: Final = IMMUTABLE  # The compiler would look it up in its module each time.
_MOST_UNSHARED: Final = 4096  # Bytes of an array: to look whether it was hashed takes as long.
_COMPUTED: Final[tuple[bytes, Any]] = (b"", None)


@mypyc_attr(native_class=False)
class _ContainsItselfError(UnsupportedTypeError):
    """A value contains itself."""


class _KnownClass:
    """The hash of a class, and what it depends on."""

    def __init__(self, digest: bytes, variables: list[Variable]) -> None:
        self.digest = digest
        # Most are unchanged if the same object is at the same place.
        self._named: list[tuple[Any, str, Any]] = []
        self._enclosed: list[tuple[Any, Any]] = []
        self._others: list[Variable] = []
        for one in variables:
            same = one.fixed or one.steady
            if same and one.namespace is not None:
                self._named.append((one.namespace, one.name, one.value))
            elif same and one.cell is not None and one.value is not ABSENT:
                self._enclosed.append((one.cell, one.value))
            else:
                self._others.append(one)

    def is_current(self) -> bool:
        """Return whether nothing that the class refers to has changed."""
        for namespace, name, value in self._named:
            if namespace.get(name, ABSENT) is not value:
                return False
        try:
            for cell, value in self._enclosed:
                if cell.cell_contents is not value:
                    return False
        except ValueError:  # It is empty by now.
            return False
        return not any(map(Variable.has_changed, self._others))


_classes: dict[type, _KnownClass] = {}  # Bounded: it keeps them alive.


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
        kind = type(value)
        digest: bytes | None = None
        if kind in CONTAINERS:
            digest = plain_hash(value)
        elif kind is np.ndarray or kind in _IMMUTABLE:
            digest = hash_part(None, value)  # It has no parts.
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
        # By the id of an object its hash, empty while it is computed, and the object: an id means
        # something only while its object lives.
        self._seen: dict[int, tuple[bytes, Any]] = {}

    def digest(self, value: Any) -> bytes:
        """Return the hash of one value; an object that occurs twice is hashed once."""
        kind = type(value)
        if kind in CONTAINERS:
            plain = plain_hash(value)
            if plain is not None:
                return plain
        elif kind in _IMMUTABLE or (kind is np.ndarray and value.nbytes <= _MOST_UNSHARED):
            found = hash_part(self, value)
            if found is not None:  # Such a value holds nothing, least of all itself.
                return found
        return self.digest_by_parts(value)

    def digest_by_parts(self, value: Any) -> bytes:
        """Return the hash of what is not plain, or not known to be."""
        identity = id(value)
        seen = self._seen.get(identity)
        if seen is not None:
            if seen[0]:
                return seen[0]
            kind = type(value).__name__
            raise _ContainsItselfError(f"a {kind} that contains itself cannot be hashed")
        self._seen[identity] = _COMPUTED
        digest = hash_part(self, value)  # As `hash_value` does, which is not compiled.
        if digest is None:
            digest = hash_other(self, value)
        self._seen[identity] = digest, value
        return digest

    def digest_definition(self, value: Any) -> bytes:
        """Return the hash of a function or a class, complete in itself."""
        known = _classes.get(value) if self._code and isinstance(value, type) else None
        if known is not None and known.is_current():
            return known.digest
        walk = HashWalk(code=self._code)
        found = walk.finish(walk.digest(value))
        if self._code and isinstance(value, type):
            if len(_classes) >= _MAX_CLASSES:
                _classes.clear()
            _classes[value] = _KnownClass(found, list(walk.variables.values()))
        return found

    def digest_set_item(self, value: Any) -> bytes:
        """Return the hash of an item of a set."""
        return self.digest(value)
