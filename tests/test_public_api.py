"""The public names and signatures, written out: a change here is a change for every user."""

from __future__ import annotations

import inspect
from collections.abc import MutableMapping

import memories
from memories import MemoryManager, errors

NAMES = {"MemoryManager", "DistributedMemoryManager", "__version__"}

CONSTRUCTOR = {
    "hot_memory_size": 8,
    "warm_memory_size": 32,
    "cold_memory_size": 500,
    "glacier_memory_enabled": False,
    "storage_path": None,
    "glacier_url": None,
    "storage_options": None,
    "hot_device": "auto",
    "eviction_policy": "auto",
    "compression": None,
    "durability": "relaxed",
    "write_through": False,
    "on_full": "raise",
    "migration": None,
    "prefetch": "auto",
    "read_only": False,
}

METHODS = {
    "store": "key data tier ttl metadata pin min_tier max_tier volatile copy if_version",
    "retrieve": "key default region device like copy timeout",
    "delete": "key",
    "exists": "key",
    "get_tier": "key",
    "scan": "prefix",
    "find": "metadata",
    "delete_prefix": "prefix",
    "modify": "key fn",
    "store_many": "mapping tier",
    "retrieve_many": "keys",
    "prefetch": "keys",
    "migrate": "key tier",
    "promote": "key",
    "demote": "key",
    "pin": "key",
    "unpin": "key",
    "get_memory_usage": "",
    "stats": "",
    "explain": "key",
    "advise": "",
    "check": "repair",
    "create_snapshot": "path",
    "restore_snapshot": "path",
    "clear": "",
    "flush": "",
    "cleanup": "",
    "enable_analytics": "",
    "get_analytics": "",
    "plot_analytics": "path",
}


def test_the_package_gives_out_exactly_these_names() -> None:
    """A name given out is a name to keep."""
    assert NAMES | error_names() == set(memories.__all__)


def error_names() -> set[str]:
    """Return the errors that the package itself gives out."""
    return {name for name in memories.__all__ if hasattr(errors, name)}


def test_the_original_import_path_works() -> None:
    """Programs written for the predecessor import the managers from here."""
    from memories.core.memory_manager import DistributedMemoryManager
    from memories.core.memory_manager import MemoryManager as original

    assert MemoryManager is original
    assert memories.DistributedMemoryManager is DistributedMemoryManager


def test_the_constructor_takes_these_arguments() -> None:
    """The four sizes may be given by position, everything else by name only."""
    parameters = inspect.signature(MemoryManager).parameters
    assert CONSTRUCTOR == {name: one.default for name, one in parameters.items()}
    by_position = [name for name, one in parameters.items() if one.kind is not one.KEYWORD_ONLY]
    assert list(CONSTRUCTOR)[:4] == by_position


def test_the_methods_take_these_arguments() -> None:
    """The names of arguments are part of the interface: callers write them."""
    actual = {
        name: " ".join(list(inspect.signature(getattr(MemoryManager, name)).parameters)[1:])
        for name in METHODS
    }
    assert METHODS == actual


def test_there_is_no_public_method_beyond_these() -> None:
    """What slips in without being written down would have to be kept for ever."""
    mapping = {name for name in dir(MutableMapping) if not name.startswith("_")}
    public = {name for name in vars(MemoryManager) if not name.startswith("_")}
    assert set(METHODS) | {"cache"} == public - mapping


def test_the_manager_is_a_mapping_and_a_context_manager() -> None:
    """Whoever has a dict today changes one line."""
    assert issubclass(MemoryManager, MutableMapping)
    assert hasattr(MemoryManager, "__enter__")


def test_every_public_signature_is_typed() -> None:
    """The package ships `py.typed`, so a type checker believes what it says."""
    untyped = [
        f"{name}({parameter.name})"
        for name in METHODS
        for parameter in list(inspect.signature(getattr(MemoryManager, name)).parameters.values())[
            1:
        ]
        if parameter.annotation is parameter.empty
    ]
    assert [] == untyped
