"""The public names and signatures, written out: a change here is a change for every user."""

from __future__ import annotations

import inspect
import re
import runpy
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import memories
from memories import MemoryManager, compiled, errors

NAMES = {
    "CacheInfo", "CachedFunction", "Cause", "Codec", "Dashboard", "DistributedMemoryManager",
    "EncryptionKey",
    "Explanation", "KeyInfo", "Latency", "MemoryManager", "MigrationSettings", "Parts", "Policy",
    "PrefixView", "Rule", "Series", "SharedMemoryManager", "Stats", "StoreTier", "TierChoice",
    "TierName", "TierStats",
    "Volume", "__version__", "cached", "default", "instrument", "prometheus_collector",
    "prometheus_text", "register_codec", "register_policy",
}  # fmt: skip

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
    "exit_flush_seconds": 30.0,
    "write_through": False,
    "on_full": "raise",
    "migration": None,
    "prefetch": "auto",
    "rules": (),
    "read_only": False,
    "takeover": False,
    "trusted_keys": (),
    "encryption": None,
}

METHODS = {
    "store": "key data tier ttl metadata pin min_tier max_tier volatile copy if_version evictable",
    "retrieve": "key default region copy device like timeout",
    "cache": "function version ignore key ttl tier",
    "delete": "key",
    "exists": "key",
    "get_tier": "key",
    "info": "key",
    "prefix": "prefix",
    "scan": "prefix delimiter",
    "find": "metadata",
    "delete_prefix": "prefix",
    "delete_many": "keys",
    "copy": "key new",
    "rename": "key new",
    "touch": "key ttl",
    "set_terms": "key ttl metadata pin min_tier max_tier evictable",
    "modify": "key fn",
    "store_many": "mapping tier",
    "retrieve_many": "keys timeout",
    "migrate": "key tier",
    "promote": "key",
    "demote": "key",
    "prefetch": "keys",
    "pin": "key",
    "unpin": "key",
    "get_memory_usage": "",
    "stats": "",
    "explain": "key",
    "advise": "more",
    "record_trace": "path share max_bytes",
    "check": "repair dry_run progress",
    "create_snapshot": "path tiers prefix base include_glacier portable progress",
    "restore_snapshot": "path mode verify wait bases progress",
    "rotate_key": "to",
    "snapshots_in_archive": "",
    "release_snapshot": "identity",
    "clear": "purge",
    "flush": "",
    "oom_guard": "reserve",
    "cleanup": "flush",
    "close": "flush",
    "resize": "tier size",
    "victim": "tier",
    "evict_one": "tier",
    "dashboard": "port host token hosts",
    "enable_analytics": "interval history",
    "get_analytics": "window",
    "plot_analytics": "path_or_ax",
    "report": "path",
    "telemetry": "",
}


ROOT = Path(__file__).parents[1]

PROPERTIES = {"closed": "bool", "path": "Path | None", "read_only": "bool"}


def test_the_package_gives_out_exactly_these_names() -> None:
    """A name given out is a name to keep."""
    given_out = {name for name in memories.__all__ if not name.endswith("Error")}
    assert NAMES == given_out
    assert all(hasattr(memories, name) for name in memories.__all__)


def test_every_error_is_given_out() -> None:
    """Code that catches an error imports it from the package itself."""
    family = {
        name
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, errors.MemoriesError)
    }
    assert family <= set(memories.__all__)


def test_every_documented_error_is_given_out() -> None:
    """A name that a user reads in docs/errors.md can be imported from the package, and caught."""
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    documented = set(re.findall(r"^### `(\w+)`", text, re.MULTILINE))
    given_out = {name for name in memories.__all__ if name.endswith("Error")}
    assert documented == given_out
    assert all(issubclass(getattr(memories, name), errors.MemoriesError) for name in documented)


def modules_of_the_policy() -> dict[str, str]:
    """Return the modules that docs/compatibility.md names, and whether each is public."""
    text = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
    return dict(re.findall(r"^\| `(memories[\w.]*)` \| (\w+) \|", text, re.MULTILINE))


def test_every_module_of_the_policy_is_there() -> None:
    """A user who imports it has a promise; what is public says what it gives out."""
    found = modules_of_the_policy()
    assert {"public", "provisional"} == set(found.values())
    for name, kind in found.items():
        path = ROOT / "src" / name.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert file.is_file(), name
        if kind == "public" and name != "memories.testing":
            assert re.search(r"^__all__ = ", file.read_text("utf-8"), re.MULTILINE), name


def test_documents_import_only_modules_of_the_policy() -> None:
    """A document that shows an import makes a promise about it."""
    known = modules_of_the_policy()
    shown = [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "examples").rglob("*.py")]
    shown += [path for path in (ROOT / "docs").rglob("*.md") if "decisions" not in path.parts]
    strangers = {
        (str(path.relative_to(ROOT)), name)
        for path in shown
        for name in re.findall(
            r"^\s*(?:from|import) (memories[\w.]*)", path.read_text("utf-8"), re.M
        )
        if name not in known and not name.startswith("memories.testing.")
    }
    assert set() == strangers


def test_the_short_modules_are_in_the_policy() -> None:
    """What lies beside the package's own names looks public; it is, or it has an underscore."""
    names = {path.stem for path in (ROOT / "src" / "memories").glob("*.py")}
    internal = {"caching", "compiled", "errors"}  # Their names come from the package itself.
    public = {name.partition(".")[2] for name in modules_of_the_policy()}
    assert {name for name in names - internal if not name.startswith("_")} <= public


def test_the_original_import_path_works() -> None:
    """Programs written for the predecessor import both managers from here."""
    from memories.core.memory_manager import DistributedMemoryManager as distributed
    from memories.core.memory_manager import MemoryManager as original

    assert MemoryManager is original
    assert memories.DistributedMemoryManager is distributed


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
    public = {name for name in dir(MemoryManager) if not name.startswith("_")}
    assert {*METHODS, *PROPERTIES} == public - (mapping - set(METHODS))


def test_the_properties_are_typed() -> None:
    """They can be read and not written."""
    for name, kind in PROPERTIES.items():
        one = getattr(MemoryManager, name)
        assert isinstance(one, property) and one.fset is None and one.fget is not None
        assert kind == one.fget.__annotations__["return"]


def test_the_manager_is_a_mapping_and_a_context_manager() -> None:
    """A user who has a dict today changes one line."""
    assert issubclass(MemoryManager, MutableMapping)
    assert hasattr(MemoryManager, "__enter__")


def as_written(name: str) -> Any:
    """Return a method of the manager from its source: a compiled one has no types."""
    method = getattr(MemoryManager, name)
    if inspect.isfunction(method):
        return method
    path = compiled.source_of(Path(memories.__file__).parent, "memories.core.short_ways")
    return getattr(runpy.run_path(str(path))["ShortWays"], name)


def test_compiled_methods_have_their_docstrings() -> None:
    """`help(MemoryManager.retrieve)` is where a user looks first."""
    for name in METHODS:
        assert inspect.getdoc(as_written(name)) == inspect.getdoc(getattr(MemoryManager, name))


def test_every_public_signature_is_typed() -> None:
    """The package ships `py.typed`, so a type checker believes what it says."""
    signatures = {name: inspect.signature(as_written(name)) for name in METHODS}
    untyped = [
        f"{name}({parameter.name})"
        for name, signature in signatures.items()
        for parameter in list(signature.parameters.values())[1:]
        if parameter.annotation is parameter.empty
    ]
    untyped += [name for name, one in signatures.items() if one.return_annotation is one.empty]
    assert [] == untyped
