"""Writes the reference from the docstrings: `python docs/reference/generate.py`.

Each topic has one file, with the signature and the docstring of each name as in the source. A test
fails when a file differs from the source.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
TOPICS = {
    "manager": (
        "The manager",
        [
            "memories:MemoryManager", "memories:PrefixView", "memories:SharedMemoryManager",
            "memories:cached", "memories:default", "memories:MigrationSettings",
            "memories:EncryptionKey",
        ],
    ),
    "distributed": ("The distributed manager", ["memories:DistributedMemoryManager"]),
    "observing": (
        "What a manager shows",
        [
            "memories:Stats", "memories:TierStats", "memories:Volume", "memories:Latency",
            "memories:Series", "memories:Explanation", "memories:KeyInfo", "memories:Dashboard",
            "memories:prometheus_text", "memories:prometheus_collector", "memories:instrument",
            "memories.progress:bar",
        ],
    ),
    "extending": (
        "Codecs and policies of one's own",
        [
            "memories:Codec", "memories:Parts", "memories:register_codec", "memories:Policy",
            "memories:register_policy",
        ],
    ),
}  # fmt: skip
# Names that belong to other packages, as well. Where one of these is missing, the page stays as it
# is; the site shows it as it is, too, since the docstrings of their base classes are not ours.
HOSTS = {
    "integrations": (
        "Stores, files and data of other packages",
        [
            "memories.zarr:MemoriesStore", "memories.zarr:CachedStore",
            "memories.zarr:cache_decoded", "memories.zarr:ArrayReads",
            "memories.xarray:open", "memories.xarray:store_of", "memories.xarray:Accessor",
            "memories.fsspec:CachedFileSystem", "memories.fsspec:MemoriesFileSystem",
            "memories.fsspec:register",
            "memories.dask:worker_data", "memories.dask:WorkerData",
            "memories.joblib:MemoriesStoreBackend",
        ],
    ),
}  # fmt: skip
NEEDED = ("zarr", "xarray", "fsspec", "distributed", "joblib")

os.environ["MEMORIES_INTERPRETED"] = "1"  # Compiled functions have no types to show.


def pages() -> Iterator[tuple[Path, str]]:
    """Yield each file of the reference and its text, as far as the packages are there for it."""
    hosts = HOSTS if all(map(find_spec, NEEDED)) else {}
    for name, (title, things) in (TOPICS | hosts).items():
        parts = [
            f"# {title}",
            "Generated from the docstrings by `docs/reference/generate.py`; change those instead.",
            *(part for thing in things for part in describe(thing)),
        ]
        yield FOLDER / f"{name}.md", "\n\n".join(parts) + "\n"


def describe(thing: str) -> Iterator[str]:
    """Yield the description of a function, or of a class and its public members."""
    module, _, name = thing.partition(":")
    found = getattr(import_module(module), name)
    yield f"## `{name}`"
    yield from _block(name, found)
    if not inspect.isclass(found):
        return
    for member, value in sorted(_members(found).items()):
        yield f"### `{name}.{member}`"
        yield from _block(member, value)


def _members(found: type) -> dict[str, Any]:
    members = {}
    for kind in reversed(found.__mro__):
        if kind.__module__.startswith("memories"):
            members.update(vars(kind))
    plain = (staticmethod, classmethod, property)
    return {
        name: value
        for name, value in members.items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, plain))
    }


def _block(name: str, found: Any) -> Iterator[str]:
    target = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    lines = []
    if not isinstance(target, property):
        lines += [f"{name}{_signature(target)}", ""]
    lines += (inspect.getdoc(target) or "").splitlines()
    yield "\n".join(["```text", *lines, "```"])


def _signature(target: Any) -> str:
    try:
        signature = inspect.signature(target)
    except ValueError:
        return ""
    parameters = [one for one in signature.parameters.values() if one.name != "self"]
    text = str(signature.replace(parameters=parameters))
    return re.sub(r"'Unchecked\[(.*?)\]'", r"'\1'", text)


def main() -> None:
    """Write every file."""
    for path, text in pages():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
