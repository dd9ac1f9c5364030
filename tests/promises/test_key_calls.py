"""What a manager says of a key, and what it does with keys, is the same wherever the value lies."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.promises.conftest import Make

from memories import InvalidKeyError, InvalidOptionError, KeyNotFoundError, MemoryManager

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


def levels(keys: list[str], prefix: str) -> list[str]:
    """Return what the listing of one level must show."""
    found = dict.fromkeys(
        prefix + rest[: rest.find("/") + 1] if "/" in rest else key
        for key in sorted(keys)
        if key.startswith(prefix)
        for rest in [key.removeprefix(prefix)]
    )
    return list(found)


def test_one_level_of_keys_is_listed_like_a_directory(make: Make) -> None:
    """With keys in every tier, beside a reader, and after the keys were written to the index."""
    manager = make()
    names = [f"{top}/{name}" for top in "aéz" for name in range(40)]
    names += ["a", "a/", "a//x", "b", "c/d/e/f", "z\U0010ffff/x", "z/\U0010ffff", "𝄞"]
    for number, key in enumerate(names):
        manager.store(key, number, TIERS[number % 4])
    prefixes = ["", "a", "a/", "a//", "c/", "c/d", "z", "é/", "none", "𝄞"]
    for prefix in prefixes:
        assert levels(names, prefix) == list(manager.scan(prefix, "/")), prefix
        assert sorted(key for key in names if key.startswith(prefix)) == list(manager.scan(prefix))
    for key in names[:30]:
        manager.delete(key)
    for prefix in prefixes:
        assert levels(names[30:], prefix) == list(manager.scan(prefix, "/")), prefix
    with pytest.raises(InvalidOptionError, match="delimiter"):
        list(manager.scan("", ""))
    manager.flush()
    reader = make(read_only=True)
    for prefix in prefixes:
        assert levels(names[30:], prefix) == list(reader.scan(prefix, "/")), prefix


def test_a_level_passes_over_what_lies_further_down(make: Make) -> None:
    """A directory of directories is listed without a look at each file."""
    manager = make()
    for number in range(3000):
        manager.store(f"{number % 3}/{number}", number, "warm" if number % 2 else "cold")
    looked_at = []
    found = manager._reader.exists
    manager._reader.exists = lambda key: looked_at.append(key) or found(key)  # type: ignore[method-assign, func-returns-value]
    assert ["0/", "1/", "2/"] == list(manager.scan("", "/"))
    assert len(looked_at) <= 3


def test_an_expired_key_is_not_listed(make: Make) -> None:
    """Nor is a directory in which everything has expired."""
    manager = make()
    for tier in ("warm", "cold"):
        manager.store(f"{tier}/gone", 1, tier, ttl=0.05)
        manager.store(f"{tier}/more/gone", 1, tier, ttl=0.05)
        manager.store(f"{tier}/stays", 1, tier)
    manager.store("gone/gone", 1, ttl=0.05)
    time.sleep(0.1)
    assert ["cold/", "warm/"] == list(manager.scan("", "/"))
    assert ["warm/stays"] == list(manager.scan("warm/", "/"))


def test_a_prefix_is_a_mapping_of_its_own(make: Make) -> None:
    """A host gets a part of the store, and cannot reach beyond it."""
    manager = make()
    manager.store("other", 0)
    manager.store("S2B/x", 0)
    view = manager.prefix("S2A/")
    assert isinstance(view, MutableMapping) and not view
    view["x"] = b"abc"
    view.store("y/1", b"def", "cold", metadata={"band": 4})
    view.store_many({"y/2": 2, "": 3})
    view.update({"z": 4})
    assert ["", "x", "y/1", "y/2", "z"] == list(view) == list(view.scan())
    assert ["", "x", "y/", "z"] == list(view.scan("", "/"))
    assert 5 == len(view) and "x" in view and "other" not in view and 7 not in view
    assert b"bc" == view.retrieve("x", region=slice(1, 3))
    assert ("S2A/y/1", "cold", {"band": 4}) == (
        (info := view.info("y/1")).key, info.tier, info.metadata,
    )  # fmt: skip
    assert {"x": b"abc", "y/2": 2} == view.retrieve_many(["x", "y/2"])
    assert {"1": b"def", "2": 2} == dict(view.prefix("y/").items())
    assert (2, None, 9) == (view.pop("y/2"), view.pop("y/2", None), view.setdefault("w", 9))
    assert ("", 3) == view.popitem()
    assert view == manager.prefix("S2A/") and view != manager.prefix("S2A")
    for call in (view.__getitem__, view.__delitem__, view.info, view.delete):
        with pytest.raises(KeyNotFoundError, match="'S2A/none' is in no tier"):
            call("none")
    for name in (7, None, b"x"):
        with pytest.raises(TypeError, match="a key must be a str"):
            view.store(name, 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidKeyError):
        manager.prefix("a\0")
    with pytest.raises(InvalidKeyError):
        manager.prefix("")[""]
    view.clear()
    assert not view and ["S2B/x", "other"] == list(manager)
