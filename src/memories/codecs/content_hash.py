"""The content of values as a short text: equal for equal values of equal types, in any process.

This is neither the checksum of frames nor a cryptographic hash. A function counts by its code and
everything that it refers to, any other object by what pickle would store of it.
"""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from xxhash import xxh3_128_hexdigest

from memories.codecs.digests import WIDTH_BEFORE, hash_all, head_of
from memories.codecs.function_hash import (
    HashWalk,
    UnhashableReferenceError,
    Variable,
    is_caller_deep,
)
from memories.codecs.part_hash import STRUCTURES, hash_part, hash_structure, join_plain_parts
from memories.codecs.plain_hash import CONTAINERS, plain_hash
from memories.codecs.scalars import IMMUTABLE
from memories.codecs.value_hash import ABSENT, hash_other
from memories.compiled import mypyc_attr
from memories.errors import UnsupportedTypeError

_MAX_CLASSES: Final = 512
_IMMUTABLE: Final = IMMUTABLE  # The compiler would look it up in its module each time.
_MOST_UNSHARED: Final = 4096  # Bytes of an array: to look whether it was hashed takes as long.
_COMPUTED: Final[tuple[bytes, Any]] = (b"", None)
_NAMESPACES: Final = frozenset({dict, MappingProxyType})
_ONE_ARGUMENT: Final = head_of(b"args") + WIDTH_BEFORE


@mypyc_attr(native_class=False)
class _ContainsItselfError(UnsupportedTypeError):
    """A value contains itself."""


class _KnownClass:
    """The hash of a class, and what it depends on."""

    def __init__(self, digest: bytes, variables: list[Variable]) -> None:
        self.digest = digest
        # Most are unchanged if the same object is at the same place, and nothing came into it.
        self._named: list[tuple[Any, str, Any]] = []
        self._undefined: list[tuple[Any, str]] = []
        self._enclosed: list[tuple[Any, Any]] = []
        self._empty: list[Any] = []
        self._others: list[Variable] = []
        for one in variables:
            value = one.value
            if not (one.fixed or one.steady or one.empty):
                self._others.append(one)
            elif type(one.namespace) in _NAMESPACES:
                if value is ABSENT:
                    self._undefined.append((one.namespace, one.name))
                else:
                    self._named.append((one.namespace, one.name, value))
            elif one.cell is not None and value is not ABSENT:
                self._enclosed.append((one.cell, value))
            else:
                self._others.append(one)
                continue
            if one.empty:
                self._empty.append(value)

    def is_current(self) -> bool:
        """Return whether nothing that the class refers to has changed."""
        try:
            for namespace, name, value in self._named:
                if namespace[name] is not value:
                    return False
            for cell, value in self._enclosed:
                if cell.cell_contents is not value:
                    return False
        except (KeyError, ValueError):  # A name is not defined any more, a cell empty by now.
            return False
        for namespace, name in self._undefined:
            if name in namespace:
                return False
        for value in self._empty:
            if value:
                return False
        return not any(map(Variable.has_changed, self._others))


class _NamedClass:
    """The hash of a class that counts by its name and its file, and where it is found."""

    def __init__(self, digest: bytes, kind: type, namespace: dict[str, Any]) -> None:
        self.digest = digest
        self._kind = kind
        self._namespace = namespace
        self._file = namespace.get("__file__")

    def is_current(self) -> bool:
        """Return whether its name still leads to the class."""
        kind, namespace = self._kind, self._namespace
        module = sys.modules.get(kind.__module__)
        return (
            module is not None
            and module.__dict__ is namespace
            and namespace.get(kind.__qualname__) is kind
            and namespace.get("__file__") is self._file
        )


# By class, with its code and without. Bounded: they keep the classes alive.
_classes: dict[type, _KnownClass] = {}
_named_classes: dict[type, _NamedClass] = {}


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
    if len(digests) == 1:
        hexadecimal: str = xxh3_128_hexdigest(_ONE_ARGUMENT + digests[0])
        return hexadecimal
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
        elif kind in STRUCTURES:
            digest = _hash_plain_structure(kind, value, code)
        if digest is None:
            hasher = hasher or _ValueHasher(code)
            digest = hasher.digest_by_parts(value)
        digests.append(digest)
    return digests


def _hash_plain_structure(kind: type, value: Any, code: bool) -> bytes | None:
    """Return the hash of a dataclass or a named tuple that holds plain values only, else None."""
    joined = join_plain_parts(value)
    return None if joined is None else hash_structure(kind, _digest_class(kind, code), joined)


def _digest_class(kind: type, code: bool) -> bytes:
    """Return the hash of a class, which is the last one unless something has changed."""
    if code:
        known = _classes.get(kind)
        if known is not None and known.is_current():
            return known.digest
    else:
        named = _named_classes.get(kind)
        if named is not None and named.is_current():
            return named.digest
    walk = HashWalk(code=code)
    found = walk.finish(walk.digest(kind))
    if code:
        if len(_classes) >= _MAX_CLASSES:
            _classes.clear()
        _classes[kind] = _KnownClass(found, list(walk.variables.values()))
        return found
    namespace = getattr(sys.modules.get(kind.__module__), "__dict__", None)
    if type(namespace) is dict and namespace.get(kind.__qualname__) is kind:
        if len(_named_classes) >= _MAX_CLASSES:
            _named_classes.clear()
        _named_classes[kind] = _NamedClass(found, kind, namespace)
    return found


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
        elif kind in STRUCTURES:
            found = _hash_plain_structure(kind, value, self._code)
            if found is not None:
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
        if isinstance(value, type):
            return _digest_class(value, self._code)
        walk = HashWalk(code=self._code)
        return walk.finish(walk.digest(value))

    def digest_set_item(self, value: Any) -> bytes:
        """Return the hash of an item of a set."""
        return self.digest(value)
