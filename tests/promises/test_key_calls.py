"""What a manager says of a key, and what it does with keys, is the same wherever the value lies."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.promises.conftest import Make
from tests.support.passing_time import PassTime
from tests.support.values import identical

from memories import (
    CorruptDataError,
    InvalidKeyError,
    InvalidOptionError,
    KeyNotFoundError,
    MemoryManager,
    TierFullError,
    UntrustedDataError,
)

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


def test_many_keys_are_removed_together(make: Make) -> None:
    """Absent keys are passed over, in every tier; nothing comes back after a reopen."""
    manager = make()
    names = [f"k/{number}" for number in range(700)]
    for number, key in enumerate(names):
        manager.store(key, b"x" * (number % 900), TIERS[number % 3])
    manager.store("archived", b"x", "glacier")
    manager.store("expired", b"x", "cold", ttl=0.05)
    time.sleep(0.1)
    gone = [*names[:600], "archived", "expired", "never", names[0]]
    assert 601 == manager.delete_many(iter(gone))
    assert 0 == manager.delete_many(gone) == manager.delete_many([])
    assert sorted(names[600:]) == list(manager)
    manager.cleanup()
    assert sorted(names[600:]) == list(make())
    with pytest.raises(TypeError, match="keys="):
        make().delete_many("k/1")


@pytest.mark.parametrize("tier", TIERS)
def test_terms_change_without_the_value(make: Make, tier: str) -> None:
    """Metadata and times belong to a key, and a value of gigabytes is not written for them."""
    manager = make()
    manager.store("a", b"x" * 5000, tier, metadata={"old": 1}, ttl=500)
    before = manager.info("a")
    manager.set_terms("a", metadata={"new": 2}, min_tier=tier, evictable=True)
    info = manager.info("a")
    assert ({"new": 2}, tier, True) == (info.metadata, info.min_tier, info.evictable)
    assert (before.version, before.expires_at) == (info.version, info.expires_at)
    assert before.tier == info.tier and before.stored_at == info.stored_at
    manager.set_terms("a", ttl=None, evictable=False, pin=True, metadata=None)
    info = manager.info("a")
    assert (None, {}, True, False) == (info.expires_at, info.metadata, info.pinned, info.evictable)
    assert b"x" * 5000 == manager["a"]
    manager.cleanup()
    again = make().info("a")
    assert (None, {}, True, tier) == (
        again.expires_at,
        again.metadata,
        again.pinned,
        again.min_tier,
    )


@pytest.mark.parametrize("tier", TIERS)
def test_a_key_gets_longer_and_shorter_to_live(make: Make, tier: str, pass_time: PassTime) -> None:
    """A session that is used lives on, and one that was for ever can be given an end."""
    manager = make()
    manager.store("a", [1, 2], tier, ttl=300)
    manager.store("b", [1, 2], tier)
    manager.touch("a", ttl=60_000)
    manager.touch("b")
    assert manager.info("b").expires_at is None
    manager.touch("b", ttl=300)
    pass_time(500)
    assert [1, 2] == manager["a"]
    assert "b" not in manager and ["a"] == list(manager)
    with pytest.raises(KeyNotFoundError):
        manager.touch("b")
    manager.set_terms("a", ttl=None)
    assert manager.info("a").expires_at is None and [1, 2] == manager["a"]


def test_what_contradicts_itself_is_refused(make: Make) -> None:
    """The key stays as it was."""
    manager = make()
    manager.store("a", 1, "cold", metadata={"x": 1})
    wrong: list[dict[str, Any]] = [
        {"max_tier": "warm"}, {"min_tier": "cold", "max_tier": "hot"}, {"ttl": -1}, {"ttl": "x"},
        {"metadata": {"x": object()}}, {"pin": True, "evictable": True}, {"min_tier": "none"},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(InvalidOptionError):
            manager.set_terms("a", **options)
    with pytest.raises(InvalidOptionError, match="pin=True"):
        manager.store("b", 1, pin=True, evictable=True)
    with pytest.raises(KeyNotFoundError):
        manager.set_terms("none", ttl=3)
    assert {"x": 1} == manager.info("a").metadata
    reader = make(read_only=True)
    for call in (lambda: reader.touch("a"), lambda: reader.set_terms("a", ttl=3)):
        with pytest.raises(OSError, match="read_only"):
            call()


def test_a_key_that_is_touched_leaves_its_tier_later(make: Make) -> None:
    """Where a program knows that a value is in use, it need not read it."""
    manager = make("0 B", "100 kB", eviction_policy="lru")
    for number in range(9):
        manager.store(f"{number}", np.zeros(1250), "warm")
    manager.touch("0")
    for number in range(9, 14):
        manager.store(f"{number}", np.zeros(1250), "warm")
    assert ("warm", "cold") == (manager.get_tier("0"), manager.get_tier("1"))


def test_evictable_values_leave_a_small_disk_that_is_full(make: Make) -> None:
    """Four hundred come into room for some; what was stored to be kept stays, and all is whole."""
    manager = make("0 B", "100 kB", "2 MB", glacier_memory_enabled=False)
    for number in range(400):
        value = np.random.default_rng(number).bytes(10_000)
        manager.store(f"cache/{number}", value, evictable=True)
    manager.store("kept", b"x" * 10_000)
    left = list(manager.scan("cache/"))
    assert 120 < len(left) < 190 and "kept" in manager
    for key in left:
        assert np.random.default_rng(int(key[6:])).bytes(10_000) == manager[key]


def test_an_evictable_value_is_dropped_where_others_would_be_refused(make: Make) -> None:
    """An entry of a cache makes room, what was stored to be kept stays, and nothing is torn."""
    manager = make("0 B", "100 kB", "5 MB", glacier_memory_enabled=False)
    values = {f"ram/{number}": np.random.default_rng(number).bytes(10_000) for number in range(20)}
    manager.store("kept", b"x" * 10_000, "warm", pin=True)
    for key, value in values.items():
        manager.store(key, value, evictable=True, max_tier="warm")
    left = list(manager.scan("ram/"))
    assert 3 < len(left) < 10 and "kept" in manager
    assert all(("warm", values[key]) == (manager.get_tier(key), manager[key]) for key in left)
    with pytest.raises(TierFullError):
        manager.store("too large", bytes(95_000), max_tier="warm")


class Odd:
    """A value that only pickle can store, so that it is signed together with its key."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.call = functools.partial(int, "7")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd) and (self.number, self.call()) == (other.number, other.call())

    __hash__ = None  # type: ignore[assignment]


NEW_NAMES: dict[str, Any] = {
    **VALUES,
    "number": 7,
    "empty": b"",
    "large": np.arange(400_000.0),
    "packed": np.zeros(400_000),
    "odd": Odd(5),
}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("call", ["copy", "rename"])
def test_a_value_gets_another_key(make: Make, call: str, tier: str) -> None:
    """Files are copied and renamed, and the value is not decoded for it: whatever it is."""
    manager = make()
    for name, value in NEW_NAMES.items():
        manager.store(name, value, tier, metadata={"of": name}, ttl=900)
        before = manager.info(name)
        assert getattr(manager, call)(name, f"new/{name}") is None
        info = manager.info(f"new/{name}")
        assert (tier, before.codec, before.nbytes) == (info.tier, info.codec, info.nbytes)
        assert (before.metadata, before.expires_at) == (info.metadata, info.expires_at)
        assert before.durable == info.durable and before.version < info.version
        assert identical(value, manager[f"new/{name}"]), name
        assert (call == "copy") == (name in manager)
    manager.cleanup()
    again = make()
    for name, value in NEW_NAMES.items():
        assert identical(value, again[f"new/{name}"]), name
        assert (call == "copy") == (name in again)
    assert [] == again.check()


@pytest.mark.parametrize("under", [None, *TIERS])
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("call", ["copy", "rename"])
def test_another_key_replaces_what_lay_there(
    make: Make, call: str, tier: str, under: str | None
) -> None:
    """In every tier, also with a copy in RAM of what is at rest; nothing old comes back."""
    manager = make()
    for raised in (False, True):
        if under is not None:
            manager.store("b", "old", under)
            if raised and under in ("cold", "glacier"):
                manager.migrate("b", "warm")
        manager.store("a", ["value", raised], tier)
        if raised and tier in ("cold", "glacier"):
            manager.migrate("a", "hot")
        getattr(manager, call)("a", "b")
        assert ["value", raised] == manager["b"]
        assert (call == "copy") == ("a" in manager)
        durable = manager.info("b").durable
        assert durable or (tier in ("hot", "warm") and under in (None, "hot", "warm"))
        reader = make(read_only=True)
        assert durable == ("b" in reader)
        assert not durable or ["value", raised] == reader["b"]
        reader.cleanup()
    manager.cleanup()
    again = make()
    assert ["value", True] == again["b"] and (call == "copy") == ("a" in again)
    assert [] == again.check()


def test_names_that_do_not_fit(make: Make) -> None:
    """Nothing changes where a name is absent, invalid, or the same."""
    manager = make()
    manager.store("a", 1, "cold", if_version=0)
    version = manager.info("a").version
    for call in (manager.copy, manager.rename):
        with pytest.raises(KeyNotFoundError, match="'none' is in no tier"):
            call("none", "b")
        with pytest.raises(InvalidKeyError):
            call("a", "")
        call("a", "a")
        with pytest.raises(KeyNotFoundError):
            call("none", "none")
    assert version == manager.info("a").version and ["a"] == list(manager)
    reader = make(read_only=True)
    for call in (reader.copy, reader.rename):
        with pytest.raises(OSError, match="read_only"):
            call("a", "b")


def test_what_was_copied_or_renamed_in_ram_is_charged_once(make: Make) -> None:
    """A large value is renamed in a full tier, and a copy has memory of its own."""
    manager = make("0 B", "10 MB")
    manager.store("a", np.zeros(1_000_000), "warm")
    view = manager["a"]
    manager.rename("a", "b")
    assert "warm" == manager.get_tier("b") and np.shares_memory(view, manager["b"])
    assert 80 < manager.get_memory_usage()["warm"] < 81
    del view
    manager.store("c", np.zeros(100_000), "warm")
    manager.copy("c", "d")
    assert not np.shares_memory(manager["c"], manager["d"])
    manager.delete("c")
    assert 88 < manager.get_memory_usage()["warm"] < 90
    manager.delete_many(["b", "d"])
    assert 0 == manager.get_memory_usage()["warm"]


@pytest.mark.parametrize("tier", ["cold", "glacier"])
def test_a_value_that_is_not_trusted_gets_no_signature(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str
) -> None:
    """A copy is signed by this user, so what it is made from must have been trusted before."""
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "theirs"))
    manager = make()
    manager.store("a", Odd(1), tier)
    manager.cleanup()
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "mine"))
    manager = make()
    for call in (manager.copy, manager.rename):
        with pytest.raises(UntrustedDataError, match="trust"):
            call("a", "b")
    assert ["a"] == list(manager)


@pytest.mark.parametrize("tier", ["cold", "glacier"])
@pytest.mark.parametrize("call", ["copy", "rename"])
def test_a_damaged_value_is_not_given_another_key(
    make: Make, tmp_path: Path, call: str, tier: str
) -> None:
    """A copy with checksums of its own would pass for whole."""
    manager = make(compression={"cold": "none", "glacier": "none"})
    manager.store("a", np.random.default_rng(1).bytes(3 << 20), tier)
    manager.cleanup()
    large = [one for one in (tmp_path / "store").rglob("*") if one.is_file()]
    for path in large:
        if path.stat().st_size > 3 << 20 and path.suffix in (".val", ".frame", ""):
            with path.open("r+b") as file:
                file.seek(2 << 20)
                file.write(b"damage")
    manager = make()
    with pytest.raises(CorruptDataError, match="'a'"):
        getattr(manager, call)("a", "b")
    assert ["a"] == list(manager)
