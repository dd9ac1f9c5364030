"""Enums, named tuples and dataclasses of the user: their names, their fields, new instances.

A type that a frame names is looked up in the imported modules only, and its instance is built
without `__init__`, `__new__` or `__post_init__`, so that no code of the type runs.
"""

from __future__ import annotations

import enum
import sys
from dataclasses import fields
from types import MemberDescriptorType
from typing import Any

from memories.codecs import main_classes
from memories.errors import CorruptDataError, UnsupportedTypeError

_PICKLE_HOOKS = (
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
)


# What the interpreter and NumPy call by themselves, when a value ends or is put into an array.
_IMPLICIT = (
    "__del__",
    "__array__",
    "__array_interface__",
    "__array_struct__",
    "__array_priority__",
    "__array_ufunc__",
    "__array_function__",
    "__arrow_array__",
    "__buffer__",
    "__getattribute__",
)


def name_of(kind: type) -> list[str] | None:
    """Return module and qualified name of `kind`, or None if another object has this name."""
    if _find(kind.__module__, kind.__qualname__) is not kind:
        return None
    if main_classes.is_main_class(kind):
        main_classes.record_names([kind.__qualname__])
    return [kind.__module__, kind.__qualname__]


def find_type(name: Any) -> type:
    """Return the type that `[module, qualified name]` names, without importing anything.

    Raises:
        UnsupportedTypeError: it does not exist; the message says what to import.
        CorruptDataError: the name is malformed.
    """
    if not (isinstance(name, list) and len(name) == 2 and all(type(s) is str for s in name)):
        raise CorruptDataError("the name of a type is damaged")
    found = _find(*name)
    if not isinstance(found, type):
        raise UnsupportedTypeError(main_classes.explain_missing(*name))
    return found


def is_namedtuple(kind: type) -> bool:
    """Return whether `kind` is a plain named tuple, without attributes of its own."""
    if kind.__bases__ != (tuple,) or "_fields" not in vars(kind) or _has_hooks(kind):
        return False
    return kind.__dictoffset__ == 0


def is_dataclass(kind: type) -> bool:
    """Return whether instances of `kind` consist of their fields, in a dict or in slots."""
    if "__dataclass_fields__" not in vars(kind) or isinstance(kind, enum.EnumMeta):
        return False
    if _has_hooks(kind):
        return False
    made_plainly: bool = vars(object)["__new__"] is getattr(kind, "__new__", None)
    return made_plainly and not any(
        name in vars(base) and not _generated(vars(base)[name])
        for base in kind.__mro__[:-1]
        for name in _PICKLE_HOOKS
    )


def _has_hooks(kind: type) -> bool:
    """Return whether methods of `kind` run without a call by name.

    They would run on fields that an attacker has made up. The values of such a class are pickled
    and signed, unless a codec was registered for it.
    """
    return any(
        name in vars(base)
        for base in kind.__mro__
        if base.__module__ != "builtins"
        for name in _IMPLICIT
    )


def _generated(hook: Any) -> bool:
    # `dataclass(slots=True, frozen=True)` writes a getstate and a setstate that copy the fields.
    return getattr(hook, "__module__", None) == "dataclasses"


def field_values(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass instance by name, or None if it has other attributes."""
    names = [field.name for field in fields(value)]
    if not _slots(type(value)) <= set(names):
        return None
    state = dict(getattr(value, "__dict__", {}))
    for name in names:
        slot = _slot(type(value), name)
        if slot is not None and hasattr(value, name):
            state[name] = slot.__get__(value)
    return state if state.keys() <= set(names) else None


def fields_in_dict(kind: type) -> frozenset[str] | None:
    """Return the fields of a dataclass that keeps all of them in a dict; None if it has slots."""
    if kind.__dictoffset__ == 0 or _slots(kind):
        return None
    return frozenset(field.name for field in fields(kind))


def build_dataclass(kind: type, state: dict[str, Any]) -> Any:
    """Return an instance of `kind` with these fields, running none of its code."""
    if not is_dataclass(kind):
        raise CorruptDataError(f"{kind.__qualname__} is not a plain dataclass")
    known = {field.name for field in fields(kind)}
    if not state.keys() <= known:
        raise CorruptDataError(f"{kind.__qualname__} has no field {min(state.keys() - known)!r}")
    value: Any = object.__new__(kind)
    for name, content in state.items():
        slot = _slot(kind, name)
        if slot is not None:
            slot.__set__(value, content)
        else:
            object.__getattribute__(value, "__dict__")[name] = content
    return value


def build_namedtuple(kind: type, items: list[Any]) -> Any:
    """Return a named tuple of these items, running none of its code."""
    if not is_namedtuple(kind) or len(vars(kind)["_fields"]) != len(items):
        raise CorruptDataError(f"{kind.__qualname__} is not a named tuple of {len(items)} fields")
    return tuple.__new__(kind, items)


def enum_member(value: enum.Enum) -> Any:
    """Return the name of the member, or the number of a combination of flags."""
    if value._name_ in type(value)._member_map_:
        return value._name_
    return int(value.value) if _combines(type(value)) else None


def find_member(kind: type, member: Any) -> enum.Enum:
    """Return the member of an enum, running none of its code."""
    if not isinstance(kind, enum.EnumMeta):
        raise CorruptDataError(f"{kind.__qualname__} is not an enum")
    if type(member) is int and _combines(kind):
        combined: enum.Enum = kind(member)
        return combined
    found = kind._member_map_.get(member) if type(member) is str else None
    if found is None:
        raise UnsupportedTypeError(f"{kind.__qualname__} has no member {member!r} any more")
    return found


def _combines(kind: type) -> bool:
    if not issubclass(kind, enum.Flag):
        return False
    return kind._missing_.__func__ is enum.Flag._missing_.__func__  # type: ignore[attr-defined]


def _slot(kind: type, name: str) -> Any:
    for base in kind.__mro__:
        found = vars(base).get(name)
        if type(found) is MemberDescriptorType:
            return found
    return None


def _slots(kind: type) -> set[str]:
    return {
        name
        for base in kind.__mro__
        for name, found in vars(base).items()
        if type(found) is MemberDescriptorType
    }


def _find(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        if found is None:
            return None
        # `vars` and not `getattr`: a module's or a metaclass's own lookup would be code.
        found = vars(found).get(name) if hasattr(found, "__dict__") else None
    return found
