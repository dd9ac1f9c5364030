"""What a manager says of a key, and what it does with keys, is the same wherever the value lies."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.promises.conftest import Make

from memories import InvalidOptionError, KeyNotFoundError, MemoryManager

TIERS = ["hot", "warm", "cold", "glacier"]
VALUES: dict[str, Any] = {
    "bytes": bytes(range(200)) * 9000,
    "text": "é" * 1000,
    "bytearray": bytearray(b"abc" * 100),
    "array": np.arange(300_000, dtype="i4").reshape(300, 1000),
    "dict": {"a": [1, 2, {"b": b"c"}]},
}
LENGTHS = {"bytes": 1_800_000, "text": 2000, "bytearray": 300, "array": 1_200_000, "dict": None}
CODECS = {"bytes": "bytes", "text": "str", "bytearray": "bytearray", "array": "ndarray"}


@pytest.mark.parametrize("tier", TIERS)
def test_a_key_tells_its_facts_without_its_value(manager: MemoryManager, tier: str) -> None:
    """A host asks for the size of an object far more often than for the object."""
    for name, value in VALUES.items():
        manager.store(name, value, tier, metadata={"of": name}, ttl=600)
        reads = manager.stats().reads
        info = manager.info(name)
        assert (name, tier, LENGTHS[name]) == (info.key, info.tier, info.nbytes)
        assert CODECS.get(name, "tree") == info.codec
        assert {"of": name} == info.metadata
        assert (tier in ("cold", "glacier")) == info.durable == (info.stored is not None)
        assert abs(info.expires_at - info.stored_at - 600) < 5  # type: ignore[operator]
        assert (0, None) == (info.hits, info.read_at)
        assert not info.pinned and not info.evictable
        assert reads == manager.stats().reads
        manager.store(name, value, if_version=info.version)


def test_a_key_tells_the_same_facts_in_every_tier(manager: MemoryManager) -> None:
    """Only what a move changes differs."""
    manager.store("a", VALUES["bytes"], "hot", metadata={"x": 1}, min_tier="hot", max_tier="cold")
    first = dataclasses.asdict(manager.info("a"))
    manager.migrate("a", "cold")
    then = dataclasses.asdict(manager.info("a"))
    assert {"tier", "stored", "durable", "size"} >= {n for n in first if first[n] != then[n]}
    assert abs(first["size"] - then["size"]) < 100


def test_reads_of_a_value_in_ram_are_counted_and_dated(manager: MemoryManager) -> None:
    """Programs with a policy of their own ask when a value was used, and how often."""
    manager.store("a", b"x", "warm")
    for _ in range(40):
        manager.retrieve("a")
    info = manager.info("a")
    assert 40 == info.hits
    assert info.read_at is not None and 0 <= info.read_at - info.stored_at < 30


def test_an_absent_key_has_no_facts(make: Make) -> None:
    """Also in a manager that only reads."""
    manager = make()
    manager.store("a", b"abc" * 1000, "cold")
    reader = make(read_only=True)
    assert manager.info("a") == reader.info("a")
    for one in (manager, reader):
        with pytest.raises(KeyNotFoundError, match="'b' is in no tier"):
            one.info("b")


CUTS = [slice(0, 5), slice(1_500_000, 1_500_100), slice(-7, None), slice(None, None, -9), 3, -1]


@pytest.mark.parametrize("tier", TIERS)
def test_a_region_of_bytes_is_that_part_of_them(manager: MemoryManager, tier: str) -> None:
    """An object store is read by byte ranges; the value may be an object of gigabytes."""
    for kind in (bytes, bytearray):
        whole = kind(VALUES["bytes"])
        manager.store("a", whole, tier)
        for cut in CUTS:
            part = manager.retrieve("a", region=cut)
            assert (whole[cut], type(whole[cut])) == (part, type(part))
            assert part == manager.retrieve("a", region=cut, copy=True)
        with pytest.raises(IndexError):
            manager.retrieve("a", region=2_000_000)


@pytest.mark.parametrize(("value", "index"), [({"a": 1}, 0), ("text", slice(3)), (b"abc", [1])])
def test_what_has_no_region_is_refused_alike(
    manager: MemoryManager, value: Any, index: Any
) -> None:
    """One error in every tier: its caller does not know where the value lies."""
    messages = set()
    for tier in TIERS:
        manager.store("a", value, tier)
        with pytest.raises(InvalidOptionError) as caught:
            manager.retrieve("a", region=index)
        messages.add(str(caught.value))
    assert 1 == len(messages)


def test_a_region_of_bytes_reads_only_what_it_touches(make: Make, tmp_path: Path) -> None:
    """Damage elsewhere goes unseen: the rest is neither read nor verified."""
    with make(compression={"cold": "none"}) as manager:
        manager.store("a", np.random.default_rng(1).bytes(8 << 20), "cold")
        whole = manager.retrieve("a")
    (path,) = [one for one in (tmp_path / "store").rglob("*") if one.stat().st_size > 8 << 20]
    with path.open("r+b") as file:
        file.seek((5 << 20) + 1000)
        file.write(b"damage")
    manager = make()
    assert whole[:1000] == manager.retrieve("a", region=slice(0, 1000))
    with pytest.raises(ValueError, match="damaged"):
        manager.retrieve("a", region=slice(5 << 20, (5 << 20) + 9))
