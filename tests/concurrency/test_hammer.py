"""Everything moves all the time, under many threads, and every value carries its own checksum."""

from __future__ import annotations

import gc
import random
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from memories import MemoryManager, MigrationSettings, TierFullError
from memories.engine.victims import PolicyVictims
from memories.model.tiers import TierName

SECONDS = 3.0  # At least; on a busy machine until each thread has done something.
LONG_SECONDS = 60.0
PATIENCE_SECONDS = 60.0
TURNS, MOVES = 5, 100
KEYS = [f"k{index}" for index in range(60)]


def value_of(key: str, number: int) -> np.ndarray:
    """Return an array that says whose it is and proves it."""
    words = np.random.default_rng(number).integers(0, 2**63, random.randrange(2, 800), dtype="u8")
    words[0] = xxh3_64_intdigest(key.encode() + words[1:].tobytes())
    return words


def is_sound(key: str, words: np.ndarray) -> bool:
    """Return whether `words` were made for `key`."""
    return bool(words[0] == xxh3_64_intdigest(key.encode() + words[1:].tobytes()))


@pytest.mark.timeout(120)
def test_no_value_is_ever_torn_mixed_up_or_lost(tmp_path: Path) -> None:
    """Nine threads store, read, delete, move and snapshot; nothing but KeyError may come of it."""
    hammer(tmp_path, SECONDS)


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_no_value_is_ever_torn_mixed_up_or_lost_in_a_minute(tmp_path: Path) -> None:
    """Some races need ten thousands of moves to be met once."""
    hammer(tmp_path, LONG_SECONDS)


def hammer(tmp_path: Path, seconds: float) -> None:
    """Let nine threads work on one manager, then check every value, byte and victim."""
    manager = MemoryManager(
        "60 kB",
        "100 kB",
        "400 kB",
        glacier_memory_enabled=True,
        storage_path=tmp_path / "store",
        migration=MigrationSettings(interval_seconds=0.005),
    )
    kept = {f"kept{index}": value_of(f"kept{index}", index) for index in range(20)}
    manager.store_many(kept)
    errors: list[BaseException] = []
    counts: dict[str, int] = {}
    began = time.monotonic()

    def is_over() -> bool:
        now = time.monotonic() - began
        if now < seconds:
            return False
        if now > seconds + PATIENCE_SECONDS:
            return True
        done = len(counts) == len(acts) and min(counts.values()) > TURNS
        return done and sum(manager.stats().moves.values()) > MOVES

    def loop(name: str, act: Callable[[random.Random], None]) -> None:
        chance = random.Random(name)
        while not errors and not is_over():
            try:
                act(chance)
            except KeyError:
                continue  # Another thread deleted it; that is an answer.
            except TierFullError as error:
                # A snapshot under way holds the bytes of what was replaced since it began.
                if "end snapshots that run" not in str(error):
                    errors.append(error)
            except BaseException as error:
                errors.append(error)
            counts[name] = counts.get(name, 0) + 1

    def store(chance: random.Random) -> None:
        key = chance.choice(KEYS)
        tier = chance.choice(["auto", "auto", "hot", "warm", "cold"])
        manager.store(key, value_of(key, chance.randrange(10**6)), tier)

    def read(chance: random.Random) -> None:
        key = chance.choice([*KEYS, *kept])
        assert is_sound(key, manager.retrieve(key)), key

    def move(chance: random.Random) -> None:
        key = chance.choice([*KEYS, *kept])
        tier = chance.choice(["hot", "warm", "cold", "glacier"])
        try:
            manager.migrate(key, tier)
        except TierFullError as error:
            # A snapshot under way holds what it has yet to write; the value stays where it was.
            assert tier in ("hot", "warm") or "end snapshots that run" in str(error)

    def change(chance: random.Random) -> None:
        key = chance.choice(KEYS)
        if chance.random() < 0.3:
            manager.delete(key)
        elif chance.random() < 0.1:
            manager.create_snapshot(tmp_path / "hammer.bin")
        else:
            manager.modify(key, lambda words: value_of(key, int(words[1] % 1000)))

    def batch(chance: random.Random) -> None:
        some = chance.sample(KEYS, 12)
        if chance.random() < 0.7:
            tier = chance.choice(["auto", "cold", "cold"])
            manager.store_many({key: value_of(key, chance.randrange(10**6)) for key in some}, tier)
        elif chance.random() < 0.7:
            manager.delete_prefix(chance.choice(["k1", "k2", "k33"]))
        else:
            manager.flush()
        with suppress(KeyError):  # Of a key that was deleted.
            found = manager.retrieve_many(some)
            assert all(is_sound(key, words) for key, words in found.items())

    acts = {"store1": store, "store2": store, "read1": read, "read2": read, "read3": read,
            "move1": move, "move2": move, "change": change, "batch": batch}  # fmt: skip
    threads = [threading.Thread(target=loop, args=item) for item in acts.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + PATIENCE_SECONDS + 30)
        assert not thread.is_alive(), "a thread hangs"
    assert manager._services.migrator is not None
    manager._services.migrator.stop()
    assert manager._services.prefetching is not None
    manager._services.prefetching.stop()  # What is being fetched is charged before it is there.
    manager._hierarchy.settlement.settle()
    gc.collect()
    pooled = 0
    for name in ("hot", "warm"):
        tier = manager._hierarchy.tiers[TierName(name)]
        entries = [
            entry for entry in manager._hierarchy.catalog.entries.values() if entry.tier == name
        ]
        held = sum(entry.size for entry in entries)
        assert held == tier.budget.used, f"{name} is charged for what is no longer held"
        victims = tier.victims
        assert isinstance(victims, PolicyVictims)
        assert all(entry.link is not None for entry in entries), f"{name} hides a victim"
        pooled += len(entries)
    assert pooled == len(victims.policy)  # Hot and warm have one policy.
    assert [] == ["".join(traceback.format_exception(error)) for error in errors]
    assert all(counts.get(name, 0) > TURNS for name in acts), str(counts)
    stats = manager.stats()
    assert 0 == stats.failures, stats.latest_failure
    assert sum(stats.moves.values()) > MOVES
    for key, value in kept.items():
        assert np.array_equal(value, manager.retrieve(key))
    for key in manager:
        assert is_sound(key, manager.retrieve(key))
    for tier in stats.tiers.values():
        assert 0 <= tier.used_bytes <= tier.effective_bytes
    manager.cleanup()
