"""Bad input gets one clear error, our own and the builtin one, and changes nothing."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.promises.conftest import Make

from memories import (
    Cause,
    ClosedError,
    InvalidKeyError,
    InvalidOptionError,
    MemoriesError,
    MemoryManager,
    StorageError,
    TierFullError,
    TierName,
    UnsupportedTypeError,
)
from memories.engine.operations import STACK_FRAMES

BAD_KEYS: list[Any] = [
    "",
    "x" * 65_536,
    "ä" * 2049,
    "a\0b",
    "\ud800",
    1,
    None,
    b"bytes",
    ["list"],
    (),
]
GOOD_KEYS = [
    "a/b", "../up", "..", ".", "/", "CON", "😀", "'quoted\"", "case", "CASE", "a\nb", "*?[x]",
    "é", "e\u0301", " ", "x" * 4096, "key.npy", "1", "__dict__", "\x1b[31m",
]  # fmt: skip


@pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: repr(key)[:12])
def test_a_bad_key_is_refused(manager: MemoryManager, key: Any) -> None:
    """As ValueError always, as TypeError besides where it is no str."""
    manager.store("good", 1)
    several = [lambda: manager.store_many({key: 1}), lambda: manager.store_many({key: 1}, "cold")]
    for act in (
        lambda: manager.store(key, 1),
        lambda: manager.retrieve(key),
        lambda: manager[key],
        lambda: manager.delete(key),
        lambda: manager.get_tier(key),
        lambda: manager.exists(key),
        *([] if isinstance(key, list) else several),
    ):
        with pytest.raises(InvalidKeyError) as caught:
            act()
        assert isinstance(caught.value, ValueError)
        assert isinstance(key, str) != isinstance(caught.value, TypeError)
    assert ["good"] == list(manager)


@pytest.mark.parametrize("prefix", [None, 0.5, b"a", ["a"]])
def test_a_prefix_that_is_no_text_is_refused(manager: MemoryManager, prefix: Any) -> None:
    """As a key is; nothing is removed."""
    manager.store("a", 1)
    for act in (
        lambda: list(manager.scan(prefix)),
        lambda: list(manager.scan(prefix, "/")),
        lambda: manager.delete_prefix(prefix),
    ):
        with pytest.raises(InvalidKeyError, match="a prefix must be a str"):
            act()
    with pytest.raises(InvalidOptionError, match="delimiter="):
        list(manager.scan("", prefix or 0))
    assert ["a"] == list(manager)


def test_any_other_text_is_a_key_of_its_own(make: Make, tmp_path: Path) -> None:
    """Keys are never file names, so nothing can escape or collide."""
    before = set(tmp_path.parent.iterdir())
    manager = make()
    for tier in ("hot", "cold", "glacier"):
        for key in GOOD_KEYS:
            manager.store(key, key, tier)
        for key in GOOD_KEYS:
            assert key == manager.retrieve(key)
        assert sorted(GOOD_KEYS, key=str.encode) == list(manager)
    manager.create_snapshot(tmp_path / "s.bin")
    manager.restore_snapshot(tmp_path / "s.bin")
    assert sorted(GOOD_KEYS, key=str.encode) == list(manager)
    assert before == set(tmp_path.parent.iterdir())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"tier": "lukewarm"}, "warm"),
        ({"tier": None}, "tier"),
        ({"tier": 3}, "tier"),
        ({"ttl": -1}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"ttl": "soon"}, "ttl"),
        ({"metadata": {"x": object()}}, "metadata"),
        ({"metadata": {"x": "y" * 70_000}}, "metadata"),
        ({"min_tier": "cold", "max_tier": "hot"}, "min_tier"),
        ({"max_tier": "tepid"}, "max_tier"),
        ({"if_version": "a"}, "if_version"),
        ({"if_version": -1}, "if_version"),
    ],
)
def test_a_bad_option_of_store_is_refused(
    manager: MemoryManager, options: dict[str, Any], word: str
) -> None:
    """The error names the option, and the old value stays."""
    manager.store("a", "old")
    with pytest.raises(InvalidOptionError, match=word):
        manager.store("a", "new", **options)
    assert "old" == manager.retrieve("a")


def test_glacier_is_an_error_while_it_is_disabled(make: Make) -> None:
    """It says how to enable it."""
    manager = make(glacier_memory_enabled=False)
    with pytest.raises(InvalidOptionError, match="glacier_memory_enabled=True"):
        manager.store("a", 1, tier="glacier")
    manager.store("a", 1)
    with pytest.raises(ValueError, match="glacier"):
        manager.migrate("a", "glacier")
    assert 1 == manager.retrieve("a")
    assert 0.0 == manager.get_memory_usage()["glacier"]


@pytest.mark.parametrize(
    "options",
    [
        {"hot_memory_size": -1},
        {"warm_memory_size": "many"},
        {"cold_memory_size": float("inf")},
        {"hot_memory_size": float("nan")},
        {"hot_memory_size": None},
        {"hot_memory_size": True},
        {"warm_memory_size": "12 parsecs"},
        {"cold_memory_size": 10**30},
        {"eviction_policy": "lur"},
        {"eviction_policy": {"cold": "lru"}},
        {"compression": {"cold": "zstandard"}},
        {"compression": {"warm": "lz4"}},
        {"compression": "zstd"},
        {"eviction_policy": 3},
        {"migration": True},
        {"migration": 3},
        {"storage_options": 5},
        {"glacier_memory_enabled": "yes"},
        {"read_only": 1},
        {"durability": "maybe"},
        {"on_full": "panic"},
        {"hot_device": "tpu:0"},
        {"glacier_url": "ftp://x/y", "glacier_memory_enabled": True},
        {"glacier_url": "s3://bucket"},
        {"read_only": True},
    ],
    ids=str,
)
def test_a_bad_option_of_the_manager_is_refused(options: dict[str, Any]) -> None:
    """Before a directory, a lock or a thread is made."""
    with pytest.raises(InvalidOptionError) as caught:
        MemoryManager(**options)
    assert isinstance(caught.value, ValueError)
    option, value = next(iter(options.items()))
    assert option in str(caught.value) or repr(value) in str(caught.value)


def test_a_bad_directory_is_a_clear_error(tmp_path: Path) -> None:
    """A file in the way, a directory that may not be made."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file") as caught:
        MemoryManager(storage_path=tmp_path / "file")
    assert isinstance(caught.value, OSError)
    with pytest.raises((StorageError, InvalidOptionError)):
        MemoryManager(storage_path="/proc/no/such/place")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_a_clear_error(tmp_path: Path) -> None:
    """The error says what cannot be written."""
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError):
        MemoryManager(storage_path=tmp_path / "store")
    tmp_path.chmod(0o700)


def test_a_bad_snapshot_changes_nothing(manager: MemoryManager, tmp_path: Path) -> None:
    """Missing, foreign or cut short: everything stored stays as it was."""
    manager.store("a", list(range(1000)))
    manager.create_snapshot(tmp_path / "good.bin")
    data = (tmp_path / "good.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(data[: len(data) // 2])
    (tmp_path / "foreign.bin").write_bytes(b"not a snapshot" * 100)
    (tmp_path / "empty.bin").write_bytes(b"")
    manager.store("b", 2)
    for name in ("cut.bin", "foreign.bin", "empty.bin", "missing.bin", "."):
        with pytest.raises(MemoriesError) as caught:
            manager.restore_snapshot(tmp_path / name)
        assert isinstance(caught.value, OSError | ValueError)
    assert ["a", "b"] == list(manager)
    with pytest.raises(OSError, match="nowhere"):
        manager.create_snapshot(tmp_path / "nowhere" / "x.bin")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda manager: manager.retrieve_many("abc"), r"keys='abc' .* write \['abc'\]"),
        (lambda manager: manager.retrieve_many(3), "keys=3 must be a list"),
        (lambda manager: manager.prefetch("abc"), r"write \['abc'\]"),
        (lambda manager: manager.create_snapshot("s", tiers="cold"), r"tiers='cold' .* write"),
        (lambda manager: manager.restore_snapshot("s", bases="t"), r"bases='t' .* write"),
        (lambda manager: manager.store_many([("a", 1)]), "must be a mapping .* not a list"),
        (lambda manager: manager.store_many("abc"), "must be a mapping .* not a str"),
        (lambda manager: manager.dashboard(port="http"), "port='http' must be a number"),
        (
            lambda manager: manager.dashboard(host=None),
            "host= must be a str that is not empty, not None",
        ),
        (
            lambda manager: manager.dashboard(token=5),
            "token= must be a str that is not empty, not int",
        ),
        (lambda manager: manager.dashboard(hosts="me.local"), r"write \['me.local'\]"),
        (lambda manager: MemoryManager(trusted_keys="secret"), r"trusted_keys='secret' .* write"),
        (lambda manager: MemoryManager(rules=3), "rules=3 must be a list"),
    ],
    ids=range(13),
)
def test_one_value_in_the_place_of_several_is_refused(
    manager: MemoryManager, call: Any, message: str
) -> None:
    """A text is an iterable of letters: they would be taken as keys, tiers or names."""
    with pytest.raises(InvalidOptionError, match=message) as caught:
        call(manager)
    assert isinstance(caught.value, TypeError)
    assert [] == list(manager)


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_a_port_is_a_number_of_16_bits(manager: MemoryManager, port: int) -> None:
    """The error of the socket would be an OverflowError without a name."""
    with pytest.raises(InvalidOptionError, match=f"port={port} must be .* 65535"):
        manager.dashboard(port=port)


def test_a_closed_manager_begins_no_with_block(make: Make) -> None:
    """The block would run, and fail at its first line."""
    manager = make()
    manager.cleanup()
    with pytest.raises(ClosedError, match="cleaned up"), manager:
        raise AssertionError("the block runs")
    assert [] == manager._ipython_key_completions_()


@pytest.mark.parametrize("tier", ["cold", "warm"])
def test_store_many_says_what_it_has_stored(make: Make, tier: Any) -> None:
    """What it could not store, and whether to call again, is otherwise unknown."""
    manager = make()
    values: dict[str, Any] = {f"{number:02}": number for number in range(20)}
    values["20"] = (one for one in ())  # A generator, which no tier can hold.
    values["21"] = 21
    with pytest.raises(UnsupportedTypeError) as caught:
        manager.store_many(values, tier)
    note = "the first 20 of 22 values are stored, '20' failed, and those after it were not tried"
    assert [note] == caught.value.__notes__
    assert [f"{number:02}" for number in range(20)] == list(manager)


@pytest.mark.parametrize("tier", ["cold", "warm"])
def test_store_many_says_what_it_has_stored_before_the_disk_is_full(make: Make, tier: Any) -> None:
    """The number is exact, although many values are written with one call of the disk."""
    manager = make("1 MB", "1 MB", "8 MB", glacier_memory_enabled=False, migration=False)
    values = {f"{number:03}": os.urandom(60_000) for number in range(200)}
    with pytest.raises(TierFullError) as caught:
        manager.store_many(values, tier)
    (note,) = caught.value.__notes__
    stored = list(manager)
    assert 50 < len(stored) < 200
    assert list(values)[: len(stored)] == stored
    assert note.startswith(f"the first {len(stored)} of 200 values are stored, '{len(stored):03}'")
    manager.cleanup(flush=False)


def test_names_of_tiers_print_as_words(manager: MemoryManager) -> None:
    """A user who prints a dict of tiers reads what the methods take."""
    manager.store("a", 1, tier="warm")
    assert "'warm': TierStats(" in repr(manager.stats())
    assert "tier='warm'" in repr(manager.explain("a"))
    assert "{'warm': 'idle'}" == repr({TierName.WARM: Cause.IDLE})
    assert "warm" == str(TierName.WARM) == f"{TierName.WARM}"


def test_ipython_completes_keys(manager: MemoryManager) -> None:
    """`manager["` and the Tab key; of a large store only so many keys that the list can be read."""
    manager.store_many({f"key/{number:04}": number for number in range(1200)})
    completions = manager._ipython_key_completions_()
    assert [f"key/{number:04}" for number in range(1000)] == completions
    assert 0 == manager.stats().reads


def test_a_call_from_too_deep_a_stack_is_refused(manager: MemoryManager) -> None:
    """Before it changes anything: in the middle of a change the stack must not end."""

    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        else:
            manager.store("key", b"value", "cold")

    left = sys.getrecursionlimit() - len(inspect.stack(0)) - STACK_FRAMES // 2
    with pytest.raises(RecursionError, match="frames of the stack are left"):
        deep(left)
    assert [] == list(manager)
    deep(10)
    assert ["key"] == list(manager)
