"""Hash functions and classes with everything that they refer to.

A function counts by its code, the values it closes over, its defaults and the globals it reads; a
class by its bases, methods and attributes. Memoized functions are identified by this hash.
"""

from __future__ import annotations

import enum
import functools
import os
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any, Final, NamedTuple

from memories.codecs import scalars
from memories.codecs.digests import hash_all
from memories.codecs.function_code import (
    code_digest,
    is_installed,
    names_in,
    names_read,
    names_written,
    place_of,
    texts_in,
    write_only_names,
)
from memories.codecs.opaque_types import is_opaque
from memories.codecs.structures import name_of
from memories.codecs.value_hash import ABSENT, DEFINITIONS, hash_value, is_at, kind_name
from memories.errors import UnsupportedTypeError

_ENVIRONMENT = frozenset({"environ", "getenv"})
_IGNORE: Final = "pass ignore=[{!r}] and make what the results depend on an argument"
_VERSION: Final = "pass version=1, so that code and globals do not count, and raise it with them"
_TRIES: Final = 4
_LOGS = (list, set, dict, deque, Counter, defaultdict)
_FIXED = frozenset({"_collections._tuplegetter", "builtins.member_descriptor"})
_DEEP: Final = 0.6  # The share of the recursion limit that the caller may use before it is deep.

_substituted: set[CodeType] = set()


class UnhashableReferenceError(UnsupportedTypeError):
    """Something that a function refers to has no hash; the message says what to do, once."""


def stand_in(code: CodeType) -> None:
    """Hash functions with this code as `memo.stands_for()`, where they close over `memo`."""
    _substituted.add(code)


class Variable:
    """A variable from outside of a function that the function reads, and its latest value."""

    __slots__ = (
        "cell", "digest", "empty", "fixed", "key", "mark", "name", "namespace", "read", "steady",
        "value",
    )  # fmt: skip

    def __init__(
        self,
        owner: Any,
        name: str,
        read: Callable[[], Any],
        namespace: Mapping[str, Any] | None = None,
    ) -> None:
        self.key = (id(owner), name)
        self.name = name
        self.read = read
        # What `read` looks into, if it is one of these.
        self.namespace = namespace
        self.cell = owner if isinstance(owner, CellType) else None
        self.value = read()
        self.steady = _is_steady(self.value)  # It changes only by assignment of another object.
        self.fixed = self.steady or _is_fixed(self.value)  # The same object has the same content.
        self.empty = type(self.value) in (list, set, dict) and not self.value
        self.mark = b""
        self.digest = b""

    def current_mark(self) -> bytes:
        """Return a hash of its present value, which is valid in this process only.

        Raises:
            UnsupportedTypeError: it has none.
        """
        return HashWalk(shallow=True).digest(self.read())

    def has_changed(self) -> bool:
        """Return whether its value differs from the one that was hashed."""
        value = self.read()
        if value is self.value and (self.fixed or (self.empty and not value)):
            return False
        if self.steady:
            return value is not self.value
        try:
            return self.current_mark() != self.mark
        except UnsupportedTypeError:  # The new value has no hash.
            return True


class _Origin(NamedTuple):
    """The reference of the root function through which the present value was reached."""

    what: str
    name: str
    by_code: bool  # Only code refers to it, so it does not count with `version=`.


class HashWalk:
    """Hashes a function with what it refers to: what it closes over, its defaults, what it reads.

    Functions, classes and mutable objects get numbers in the order in which they are met. When one
    is met again, its number is hashed, so that they may refer to each other. Functions and classes
    wait in a queue until `finish`. A function of another module than the one that refers to it
    counts by its name, and so does an object that is a global of an installed module. Everything
    else that a function reads counts by its content. If it has no content hash, it is refused, or
    counts by its type alone if the code that reads it belongs to an installed package.
    """

    def __init__(
        self,
        *,
        code: bool = True,
        shallow: bool = False,
        ignore: frozenset[str] = frozenset(),
        unread: frozenset[str] = frozenset(),
        known: Mapping[tuple[int, str], tuple[bytes, bytes]] = MappingProxyType({}),
    ) -> None:
        self._code = code
        self._alive: list[Any] = []  # An id is unique only while its object lives.
        self.variables: dict[tuple[int, str], Variable] = {}
        self._shallow = shallow  # Functions and classes count by their addresses in memory.
        self._ignore = ignore
        self._unread = unread  # Parameters of the root whose defaults do not count.
        self._known = known  # Marks and digests of variables from an earlier walk.
        self._numbers: dict[int, int] = {}
        self._queue: deque[tuple[Any, bool, _Origin]] = deque()
        self._lenient = False
        self._written: set[str] = set()  # By the function at hand.
        self._write_only: set[str] = set()
        self._home: Any = None
        self._rooted: Any = None
        self._origin = _Origin("", "", by_code=False)

    def root(self, function: Any) -> bytes:
        """Return the identity of anything that can be called.

        Raises:
            UnsupportedTypeError: something that it refers to cannot be hashed.
        """
        try:
            return self.finish(self._root(function))
        except UnhashableReferenceError as error:
            raise UnsupportedTypeError(str(error)) from error.__cause__

    def finish(self, digest: bytes) -> bytes:
        """Return `digest` together with the hashes of all functions and classes met on the way."""
        digests = [digest]
        while self._queue:
            value, self._lenient, self._origin = self._queue.popleft()
            digests.append(self._define(value))
        return hash_all(b"walk", digests)

    def _root(self, function: Any) -> bytes:
        if isinstance(function, partial):
            items = [self._fixed(function, name) for name in ("args", "keywords")]
            return hash_all(b"partial", [self._root(function.func), *items])
        owner = getattr(function, "__self__", None)
        if isinstance(function, MethodType):
            return hash_all(b"method", [self._root(function.__func__), self._fixed(function)])
        if isinstance(function, BuiltinFunctionType) and not isinstance(owner, ModuleType | None):
            return hash_all(b"method", [function.__name__.encode(), self._fixed(function)])
        if isinstance(function, FunctionType):
            self._home, self._rooted = function.__globals__, function
        elif not isinstance(function, type) and not _is_named(function):
            return hash_all(b"object", [self.digest(type(function)), self._fixed(function, "")])
        return self.digest(function)

    def digest(self, value: Any) -> bytes:
        """Return the hash of one value; of an object that was met before, that of its number."""
        if value is ABSENT:
            return hash_all(b"absent", [])
        if isinstance(value, tuple | frozenset | enum.Enum) or type(value) in scalars.IMMUTABLE:
            return hash_value(self, value)
        number = self._numbers.get(id(value))
        if number is not None:
            return hash_all(b"again", [str(number).encode()])
        number = self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)
        if is_opaque(value):
            return hash_all(b"tool", [kind_name(type(value)).encode()])
        kept = _kept_as(value)
        if kept:
            return hash_all(b"kept", [kept.encode()])
        return hash_value(self, value)

    def digest_definition(self, value: Any) -> bytes:
        """Return the number of a function or class, which waits in the queue."""
        if self._shallow:
            return hash_all(b"place", [str(id(value)).encode()])
        self._queue.append((value, self._lenient, self._origin))
        return hash_all(b"definition", [str(self._numbers[id(value)]).encode()])

    def digest_set_item(self, value: Any) -> bytes:
        """Return the hash of an item by a walk of its own, with the numbers known so far."""
        walk = HashWalk(code=self._code, shallow=self._shallow, ignore=self._ignore)
        walk._numbers, walk._lenient = dict(self._numbers), self._lenient
        walk._alive, walk._origin = self._alive, self._origin
        return walk.finish(walk.digest(value))

    def _define(self, value: Any) -> bytes:
        return (
            self._define_class(value) if isinstance(value, type) else self._define_function(value)
        )

    def _define_function(self, function: FunctionType) -> bytes:
        code = function.__code__
        if code in _substituted:
            place = code.co_freevars.index("memo")
            stands_for = (function.__closure__ or ())[place].cell_contents.stands_for()
            return hash_all(b"stands for", map(self.digest, stands_for))
        namespace, name = function.__globals__, function.__qualname__
        file = place_of(namespace)
        installed = is_installed(file) and namespace is not self._home
        if installed and is_at(function, namespace, name):
            return hash_all(b"installed", [str(namespace.get("__name__")).encode(), name.encode()])
        self._written, self._write_only = names_written(code), write_only_names(code)
        parts = [file.encode("utf-8", "surrogateescape"), name.encode()]
        if self._code or installed or function.__name__ == "<lambda>":
            parts.append(code_digest(code))
        # A decorator of a library has counters and locks of its own beside the function.
        self._lenient = self._lenient or (installed and hasattr(function, "__wrapped__"))
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if variable not in self._ignore and not self._is_log(variable, _content(cell)):
                parts.append(self._closed_over(function, variable, cell))
        if self._code:
            parts += self._defaults(function)
            self._lenient = self._lenient or is_installed(file)
        if self._code and not installed:  # The globals of an installed module are not hashed.
            parts += [self._global(function, read) for read in _reads(function)]
            parts += [self._environment(name) for name in _environment_names(function)]
        return hash_all(b"function", parts)

    def _define_class(self, kind: type) -> bytes:
        namespace, own = _home_of(kind)
        name = f"{kind.__module__}:{kind.__qualname__}"
        if not own and name_of(kind) is not None:
            return hash_all(b"class", [name.encode()])
        parts = [place_of(namespace).encode("utf-8", "surrogateescape"), kind.__qualname__.encode()]
        if not self._code and name_of(kind) is not None:
            return hash_all(b"own class", parts)
        self._lenient = self._lenient or not (own or kind.__module__ not in sys.modules)
        self._written, self._write_only = set(), set()
        parts += map(self.digest, (*kind.__bases__, type(kind)))
        if isinstance(kind, enum.EnumMeta):
            parts += [self.digest((item.name, item.value)) for item in list[enum.Enum](kind)]
        for key, attribute in vars(kind).items():
            inner = _functions_of(attribute)
            if inner:
                parts += [key.encode(), *map(self.digest, inner)]
                self._member(kind, key).steady = True
            elif not (key.startswith(("__", "_abc_")) or kind in type(attribute).__mro__):
                parts += [key.encode(), self._attribute(kind, key)]
        return hash_all(b"own class", parts)

    def _member(self, kind: type, name: str) -> Variable:
        return self._named(kind, name, vars(kind))

    def _attribute(self, kind: type, name: str) -> bytes:
        variable = self._member(kind, name)
        variable.steady = False  # A method may give it another value, to count its calls say.
        return self._require_digest(variable, f"{kind.__qualname__} keeps {name!r}")

    def _closed_over(self, function: FunctionType, name: str, cell: CellType) -> bytes:
        variable = self._variable(cell, name, lambda: _content(cell))
        what = f"{function.__qualname__} closes over {name!r}"
        return self._require_digest(
            variable, what, name if function is self._rooted else "", by_code=False
        )

    def _defaults(self, function: FunctionType) -> Iterator[bytes]:
        """Yield the names and hashes of what parameters are where they are not given."""
        code, defaults = function.__code__, function.__defaults__ or ()
        names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
        rooted = function is self._rooted
        positional = zip(reversed(names), reversed(defaults), strict=False)
        for name, value in (*positional, *(function.__kwdefaults__ or {}).items()):
            if not (rooted and name in self._unread):
                variable = Variable(function, name, partial(_same, value))
                what = f"{function.__qualname__} has a default for {name!r}"
                yield name.encode()
                yield self._require_digest(variable, what, name if rooted else "")

    def _global(self, function: FunctionType, name: str) -> bytes:
        namespace = function.__globals__
        if name in self._ignore or self._is_log(name, namespace.get(name)):
            return b""
        variable = self._named(namespace, name, namespace)
        value = variable.value
        if isinstance(value, FunctionType | type) and not _belongs(value, namespace):
            path = f"{value.__module__}:{value.__qualname__}"
            if "<locals>" not in path and value.__name__ != "<lambda>":
                variable.digest = hash_all(b"elsewhere", [path.encode()])
                return variable.digest
        what = f"{function.__qualname__} reads the global {name!r}"
        return self._require_digest(variable, what, name if namespace is self._home else "")

    def _environment(self, name: str) -> bytes:
        """Return the hash of a variable of the environment, if there is one of this name."""
        if name in self._ignore:
            return b""
        return self._digest_of(
            self._variable(os.environ, name, partial(_environment_variable, name))
        )

    def _fixed(self, owner: Any, name: str = "__self__") -> bytes:
        """Return the hash of what a callable carries, which may change from call to call."""
        if name in ("", "__self__") and "self" in self._ignore:
            return b""
        read = (lambda: getattr(owner, name)) if name else (lambda: owner)
        try:
            return self._digest_of(self._variable(owner, name, read))
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(
                f"the results of {owner!r} may depend on its content, and {error}: cache a "
                "function that takes it as an argument, or pass ignore=['self']"
            ) from error

    def _is_log(self, name: str, value: Any) -> bool:
        """Return whether the present function only writes to a variable, as to a log."""
        counter = type(value) in _LOGS or type(value) in scalars.IMMUTABLE
        return name in self._write_only and counter

    def _named(self, owner: Any, name: str, namespace: Mapping[str, Any]) -> Variable:
        return self._variable(owner, name, lambda: namespace.get(name, ABSENT), namespace)

    def _variable(
        self,
        owner: Any,
        name: str,
        read: Callable[[], Any],
        namespace: Mapping[str, Any] | None = None,
    ) -> Variable:
        found = self.variables.get((id(owner), name))
        if found is None:
            found = self.variables[id(owner), name] = Variable(owner, name, read, namespace)
        found.steady = found.steady and name not in self._written
        return found

    def _digest_of(self, variable: Variable) -> bytes:
        if not variable.digest:
            if not variable.steady:
                variable.mark = variable.current_mark()
                known = self._known.get(variable.key)
                if known is None:
                    _mark_twice(variable)
                if known is not None and known[0] == variable.mark:
                    variable.digest = known[1]
                    return variable.digest
            variable.digest = self.digest(variable.value)
        return variable.digest

    def _require_digest(
        self, variable: Variable, what: str, name: str = "", *, by_code: bool = True
    ) -> bytes:
        """Return the hash of a variable, or raise an error that says what to do.

        Args:
            variable: The variable.
            what: Its description, for the message.
            name: Its name in `ignore`, if it can be ignored.
            by_code: Whether only code refers to it.
        """
        origin = self._origin
        self._origin = _Origin(what, name, by_code) if name else origin
        try:
            return self._digest_of(variable)
        except UnhashableReferenceError:
            raise
        except (UnsupportedTypeError, RecursionError) as error:
            if isinstance(error, RecursionError) and is_caller_deep():
                raise
            kind = kind_name(type(variable.value))
            if self._lenient:
                variable.steady = True
                variable.digest = hash_all(b"opaque", [kind.encode()])
                return variable.digest
            deep = f"a {kind} is nested too deeply to be hashed"
            why = str(error) if isinstance(error, UnsupportedTypeError) else deep
            what = what if kind in why else f"{what} (a {kind})"
            raise self._refused(what, why, by_code) from error
        finally:
            self._origin = origin

    def _refused(self, what: str, why: str, by_code: bool) -> UnhashableReferenceError:
        """Return the error that names what has no hash, what refers to it, and what to do."""
        origin = self._origin
        whence = "" if what.startswith(origin.what) else f"{origin.what}, and "
        cures = [_IGNORE.format(origin.name)] if origin.name else []
        cures += [_VERSION] if self._code and (by_code or origin.by_code) else []
        todo = f"; to cache it, {', or '.join(cures)}" if cures else ""
        return UnhashableReferenceError(
            f"{whence}{what}, on which results may depend, but {why}{todo}"
        )


def _mark_twice(variable: Variable) -> None:
    """Hash a variable until two hashes agree: another thread may be changing it.

    Raises:
        UnsupportedTypeError: the hashes never agree, since they depend on an address, for example.
    """
    for _ in range(_TRIES):
        mark, variable.mark = variable.mark, variable.current_mark()
        if mark == variable.mark:
            return
    raise UnsupportedTypeError(
        f"a {kind_name(type(variable.value))} cannot be hashed: it has another content each time "
        "that it is pickled"
    )


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # Nothing was assigned yet.
        return ABSENT


def _is_steady(value: Any) -> bool:
    """Return whether `value` is immutable, or counts as such."""
    if isinstance(value, tuple | frozenset):
        return all(map(_is_steady, value))
    if isinstance(value, BuiltinFunctionType):
        return isinstance(value.__self__, ModuleType)
    steady = value is ABSENT or type(value) in scalars.IMMUTABLE or is_opaque(value)
    return steady or isinstance(value, (*DEFINITIONS, ModuleType, enum.Enum))


def _is_fixed(value: Any) -> bool:
    """Return whether a value that is not steady for another reason cannot change its content."""
    if isinstance(value, BuiltinFunctionType):
        return isinstance(value.__self__, type)  # `tuple.__new__`, say.
    return kind_name(type(value)) in _FIXED


def _is_named(function: Any) -> bool:
    """Return whether pickle stores a callable by its name, as it does compiled functions."""
    try:
        return isinstance(function.__reduce_ex__(4), str)
    except Exception:  # It cannot be pickled, whatever the reason.
        return False


def _kept_as(value: Any) -> str:
    """Return the name of an object that is a global of the installed module of its class, or "".

    An object that compares by its content, such as settings, counts by its content.
    """
    kind: Any = type(value)
    if isinstance(value, DEFINITIONS) or kind.__hash__ is not object.__hash__:
        return ""
    namespace = _home_of(kind)[0]
    names = (name for name in _names_kept(kind) if namespace.get(name) is value)
    return next((f"{kind.__module__}:{name}" for name in names), "")


@functools.lru_cache(4096)
def _names_kept(kind: type) -> tuple[str, ...]:
    """Return the names of the globals of an installed module that are of this class of its own."""
    namespace, own = _home_of(kind)
    return () if own else tuple(n for n, value in dict(namespace).items() if type(value) is kind)


def _reads(function: FunctionType) -> list[str]:
    """Return the names of the globals that a function reads; those in `globals()["name"]`, too."""
    names = names_read(function.__code__)
    if "globals" in names:
        names += [text for text in texts_in(function.__code__) if text.isidentifier()]
    return list(dict.fromkeys(names))


def _environment_names(function: FunctionType) -> list[str]:
    """Return the names of the environment variables that a function may read."""
    code = function.__code__
    if _ENVIRONMENT.isdisjoint(names_in(code)):
        return []
    return [text for text in texts_in(code) if text.isascii()]


def _environment_variable(name: str) -> Any:
    """Return an environment variable, as the same object for as long as it does not change."""
    value = os.environ.get(name)
    return ABSENT if value is None else sys.intern(value)


def _same(value: Any) -> Any:
    return value


def _home_of(kind: type) -> tuple[Mapping[str, Any], bool]:
    """Return the namespace of the module of a class, and whether it is one of the program's own."""
    module = sys.modules.get(kind.__module__)
    namespace = vars(module) if module is not None else {"__name__": kind.__module__}
    own = "__file__" in namespace or kind.__module__ in ("__main__", "__mp_main__")
    return namespace, own and not is_installed(place_of(namespace))


def _belongs(value: Any, namespace: Mapping[str, Any]) -> bool:
    """Return whether a function or class is one of the module with this namespace."""
    if value.__module__ == namespace.get("__name__"):
        return True
    return isinstance(value, FunctionType) and (
        value.__globals__ is namespace or value.__code__ in _substituted
    )


def _functions_of(attribute: Any) -> tuple[Any, ...]:
    if isinstance(attribute, FunctionType):
        return (attribute,)
    if isinstance(attribute, staticmethod | classmethod):
        return (type(attribute), attribute.__func__)
    if isinstance(attribute, property):
        return (attribute.fget, attribute.fset, attribute.fdel)
    return (attribute.func,) if isinstance(attribute, functools.cached_property) else ()


def is_caller_deep() -> bool:
    """Return whether the stack was deep already before anything was hashed."""
    frame, count = sys._getframe(), 0
    while frame.f_back is not None:
        frame, count = frame.f_back, count + 1
    return count > _DEEP * sys.getrecursionlimit()
