"""Advice and recordings: what they rest on is what really happened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memories import InvalidOptionError, MemoryManager, MigrationSettings, StorageError
from memories.core.advise import advise
from memories.core.wiring import assemble
from memories.engine.access_sampler import NOTES_PER_LOOK, AccessSampler
from memories.engine.payload import Payload
from memories.model.events import Stored
from memories.model.record import DEFAULT_TERMS
from memories.model.tiers import TierName
from memories.options.settings import make_settings
from memories.policies.miss_ratio_curve import miss_ratio_curve
from memories.simulate.traces import read_trace
from memories.testing.clock import ManualClock

DEFAULTS: dict[str, Any] = {
    "storage_path": None, "glacier_url": None, "storage_options": None,
    "hot_device": "cpu", "eviction_policy": "auto", "compression": None,
    "durability": "relaxed", "exit_flush_seconds": 0.0, "write_through": False,
    "on_full": "raise", "rules": (), "read_only": False, "takeover": False, "trusted_keys": (),
}  # fmt: skip


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    with MemoryManager("1 B", "100 kB", "10 MB", migration=False, prefetch="off") as made:
        yield made


def test_advice_says_what_more_ram_would_buy(manager: MemoryManager) -> None:
    """A loop over 300 kB misses in 100 kB and never in 400; a fifth are reads after a store."""
    for turn in range(5):
        for number in range(30):
            if not turn:
                manager.store(f"k{number}", np.zeros(1250), "cold")
            manager[f"k{number}"]
    advice = manager.advise("300 kB")
    assert 150 == advice.reads
    assert advice.tiers[TierName.WARM].answered_percent < 25
    assert advice.tiers[TierName.WARM].gain_percent > 75
    assert advice.tiers[TierName.WARM].saved_seconds > 0
    assert TierName.COLD not in (advice.best,)
    assert "warm" in str(advice)


def test_advice_names_the_model_and_what_was_measured(manager: MemoryManager) -> None:
    """All reads came from cold, where an LRU of the same size would have hit: both are true."""
    manager.store_many({f"k{number}": np.zeros(1250) for number in range(5)}, "cold")
    for number in range(200):
        manager[f"k{number % 5}"]
    advice, stats = manager.advise("1 kB"), manager.stats()
    warm = advice.tiers[TierName.WARM]
    assert 100 * stats.memory_hits / stats.reads == warm.measured_percent == 0.0
    assert 100.0 == advice.tiers[TierName.COLD].measured_percent
    assert warm.answered_percent > 95
    text = str(advice)
    assert "in a model (one LRU list over all tiers, from a sample of the keys)" in text
    assert "0.0 % measured" in text
    assert "Model and measurement differ in " in text


def test_advice_that_agrees_with_the_measurement_says_nothing_of_it() -> None:
    """Warnings that always appear are not read."""
    with MemoryManager("1 MB", "1 MB", "10 MB", migration=False) as manager:
        manager.store_many({f"k{number}": number for number in range(5)}, "hot")
        for number in range(200):
            manager[f"k{number % 5}"]
        advice = manager.advise()
        assert 100.0 == advice.tiers[TierName.HOT].measured_percent
        assert "differ" not in str(advice)


def test_advice_names_demotions_that_were_regretted() -> None:
    """A value that leaves hot and is read again a moment later moved for nothing."""
    clock = ManualClock()
    late = MigrationSettings(interval_seconds=3600)
    settings = make_settings("1 MB", "1 MB", "10 MB", False, **(DEFAULTS | {"prefetch": "off"}))
    lifecycle = assemble(settings, late, clock)
    try:
        services = lifecycle.services
        hierarchy, migrator = services.hierarchy, services.migrator
        assert migrator is not None
        for number in range(4):
            hierarchy.put(f"k{number}", Payload.of(b"value"), terms=DEFAULT_TERMS)
        migrator.tick()
        clock.advance(3.5)
        migrator.tick()
        assert {"warm"} == {str(hierarchy.lookup(f"k{number}").tier) for number in range(4)}
        clock.advance(0.5)
        hierarchy.read("k0")
        clock.advance(0.1)
        migrator.tick()
        stats = services.telemetry.stats()
        assert (4, 1) == stats.idle
        assert "demoted for being idle: 4, of which 25 %" in str(stats)
        advice = advise(services.access_sampler.curve(1), stats, 1)
        assert 25 == advice.regretted_percent
        assert "25 % of the values that left hot for being idle" in str(advice)
    finally:
        lifecycle.abandon()


def test_advice_on_few_reads_says_so(manager: MemoryManager) -> None:
    """A curve of three reads looks as sure of itself as one of a million."""
    manager["key"] = b"value"
    manager["key"]
    assert "only 1 reads" in str(manager.advise())


def test_reads_at_the_front_count_for_the_curve(manager: MemoryManager) -> None:
    """They report nothing, but the sum of reads is known: they were repeated at once."""
    manager.store("busy", b"value", "warm")
    manager.store("rare", bytes(90_000), "cold")
    for _ in range(10_000):
        manager["busy"]
    manager["rare"]
    assert manager.advise().tiers[TierName.WARM].answered_percent > 99


def test_the_watch_keeps_up_by_watching_fewer(manager: MemoryManager) -> None:
    """It may take a bounded time at every look, whatever the load."""
    watch = AccessSampler()
    for number in range(20 * NOTES_PER_LOOK):
        watch.observe(Stored(f"k{number}", 0.0, TierName.WARM, 1, 0.0))
        if number % (4 * NOTES_PER_LOOK) == 0:
            watch.process_notes()
    for _ in range(10):
        watch.process_notes()
    assert watch._reuse.rate < 1
    watch._reuse.check()
    stats = manager.stats()
    assert advise(watch.curve(0), stats, 1).best is None


def test_a_recording_has_every_access_in_its_order(manager: MemoryManager, tmp_path: Path) -> None:
    """Reads that a short road answers are accesses like all others."""
    manager.store("old", b"value", "warm")
    for _ in range(10):
        manager["old"]
    path = tmp_path / "trace.jsonl"
    with manager.record_trace(path) as recording:
        for _ in range(10):
            manager["old"]
        manager.store("new", bytes(100), "cold")
        manager["new"]
        manager.store("timed", b"value", "warm", ttl=1000)
        manager["timed"]
    manager["old"]
    assert ["old"] * 10 + ["new", "new", "timed", "timed"] == read_trace(path).keys
    assert (14, 0) == (recording.written, recording.lost)


def test_a_recording_takes_a_share_of_the_keys(manager: MemoryManager, tmp_path: Path) -> None:
    """All accesses to some keys, not some to all: distances stay what they are."""
    path = tmp_path / "trace.jsonl"
    with manager.record_trace(path, share=0.25):
        for number in range(400):
            manager[f"k{number}"] = number
            manager[f"k{number}"]
    keys = read_trace(path).keys
    assert 40 < len(set(keys)) < 160
    assert 2 * len(set(keys)) == len(keys)


def test_a_recording_ends_at_its_size(manager: MemoryManager, tmp_path: Path) -> None:
    """A forgotten recording must not fill the disk."""
    path = tmp_path / "trace.jsonl"
    with manager.record_trace(path, max_bytes="1 kB"):
        for number in range(400):
            manager[f"k{number}"] = number
    assert 0 < path.stat().st_size <= 1000
    assert read_trace(path).keys


def test_a_recording_that_cannot_be_written_says_so(manager: MemoryManager, tmp_path: Path) -> None:
    """A trace that ends halfway on a full disk passes for a whole one."""
    path = tmp_path / "trace.jsonl"
    recording = manager.record_trace(path)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, recording._file.fileno())
    os.close(full)
    manager.store("key", b"value", "warm")
    with pytest.raises(StorageError, match="No space left"):
        recording.stop()
    recording.stop()
    manager["key"]


@pytest.mark.parametrize("share", [0, -1, 2])
def test_a_share_is_a_share(manager: MemoryManager, tmp_path: Path, share: float) -> None:
    """Everything else is a mistake, and must not overwrite a file first."""
    path = tmp_path / "trace.jsonl"
    with pytest.raises(InvalidOptionError):
        manager.record_trace(path, share=share)
    with pytest.raises(InvalidOptionError):
        manager.record_trace(tmp_path / "trace.txt")
    assert not path.exists()


def test_the_curve_of_a_sample_is_completed_by_what_it_stands_for() -> None:
    """SHARDS-adj: what is missing in the sample was repeated at once."""
    keys = [f"k{at % 10}" for at in range(100)]
    curve = miss_ratio_curve(keys, [1000] * 100)
    assert curve.miss_ratio(1000) == 1.0
    assert curve.miss_ratio(11_000) == 0.0
