"""Moves the parameters of torch modules into the tiers and back, so that models share a device.

Parking gives the memory of a module to the manager, and restoring takes it back: a model parked in
hot is not copied, and a model that was moved to slower tiers returns from there, bit for bit. For
checkpoints use `store(key, module.state_dict())`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from memories.core.manager import MemoryManager
from memories.errors import InvalidOptionError
from memories.model.tiers import StoreTier

LARGE_BYTES = 1 << 20  # From this size on a leaf is a value of its own, with a tier of its own.


class Leaf(NamedTuple):
    """A parameter, a buffer or a gradient of a module."""

    name: str
    tensor: Any


def park(module: Any, manager: MemoryManager, key: str, *, tier: StoreTier = "hot") -> None:
    """Move every parameter, buffer and gradient of `module` into `manager`, under `key/...`.

    The module keeps its parameter objects, which optimizers refer to, but they are empty until
    `restore`; tensors that share memory share it again then. Large leaves are stored separately and
    may be in different tiers. If anything fails, the module has not changed.

    Raises:
        InvalidOptionError: a module is parked under `key` already.
        TierFullError: no tier has room for the module.
    """
    if manager.exists(f"{key}/index"):
        raise InvalidOptionError(f"a module is parked under {key!r}; restore it first")
    groups = list(_grouped(list(_leaves(module))))
    stored: list[str] = []
    try:
        for number, group in enumerate(groups):
            manager.store(f"{key}/{number}", _data(group), tier=tier, copy=False)
            stored.append(f"{key}/{number}")
        manager.store(f"{key}/index", stored, tier=tier)
    except BaseException:
        for name in stored:
            manager.delete(name)
        raise
    for group in groups:
        for leaf in group:
            leaf.tensor.data = leaf.tensor.data.new_empty(0)


def restore(module: Any, manager: MemoryManager, key: str) -> None:
    """Restore what `park` moved from `module` to `key`, and remove it from `manager`.

    Tensors return to the device that they were on. Nothing is removed before all have returned.

    Raises:
        KeyNotFoundError: no module is parked under `key`.
        InvalidOptionError: `module` has other parameters than the one that was parked.
    """
    names = list(manager.retrieve(f"{key}/index"))
    leaves = dict(_leaves(module))
    parked: dict[str, Any] = {}
    for name in names:
        parked.update(_load_group(manager, name))
    odd = [name for name in parked.keys() ^ leaves.keys() if not name.endswith(".grad")]
    if odd:
        raise InvalidOptionError(
            f"the module parked under {key!r} is a different one: {sorted(odd)[:3]} differ"
        )
    for name, leaf in leaves.items():
        if name in parked:  # A gradient that was created meanwhile stays.
            leaf.data = parked[name]
    for name in [f"{key}/index", *names]:
        manager.delete(name)


def _data(group: list[Leaf]) -> dict[str, Any]:
    return {leaf.name: leaf.tensor.data for leaf in group}


def _load_group(manager: MemoryManager, name: str) -> dict[str, Any]:
    """Return a group whose memory belongs to the module alone once its key is deleted."""
    resident = manager.get_tier(name) == "hot"
    group: dict[str, Any] = manager.retrieve(name, copy=False if resident else None)
    return group


def _leaves(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield every parameter, buffer and gradient once, with the first of its names."""
    yield from module.named_parameters()
    yield from module.named_buffers()
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            yield f"{name}.grad", parameter.grad


def _grouped(leaves: list[tuple[str, Any]]) -> Iterator[list[Leaf]]:
    """Yield groups that are one value each: tensors that share memory, and all small ones."""
    by_memory: dict[Any, list[Leaf]] = {}
    for name, tensor in leaves:
        data = tensor.data
        place = (data.device, data.untyped_storage().data_ptr()) if data.numel() else (name, 0)
        by_memory.setdefault(place, []).append(Leaf(name, tensor))
    small: list[Leaf] = []
    for group in by_memory.values():
        if sum(leaf.tensor.numel() * leaf.tensor.element_size() for leaf in group) < LARGE_BYTES:
            small += group
        else:
            yield group
    if small:
        yield small
