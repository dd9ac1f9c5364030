"""Checks the disk of a store: free space, file system, speed, clock, and its writer."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from memories.cli.doctor.result import DoctorResult, Level, fine, judged
from memories.cli.doctor.sizes import StoreSizes
from memories.errors import MemoriesError
from memories.foundation.system import sync
from memories.foundation.units import format_size
from memories.model.tiers import TierName

TRIAL_BYTES = 32_000_000
ENOUGH_BYTES = 5 * 10**9
SLOW_BYTES_PER_SECOND = 80e6
SLOW_SYNC_SECONDS = 0.1
CLOCK_SECONDS = 2.0


def check(store: Path | None, sizes: StoreSizes | None) -> Iterator[DoctorResult]:
    """Yield the results for the store, or for the directory for temporary files."""
    from memories.backends.disk.temp_directory import default_base

    place = default_base() if store is None else store
    if not place.is_dir():
        yield DoctorResult(
            "store", Level.BAD, f"{place} is not a directory", "name a manager's directory"
        )
        return
    if store is not None:
        yield from _store(store)
    yield from _space(place)
    if sizes is not None:
        yield _cold_size(place, sizes)
    yield _kind(place)
    try:
        yield from _speed(place)
    except OSError as error:
        advice = (
            "no store can be written there: correct its permissions or choose another directory"
        )
        yield DoctorResult(
            "disk", Level.BAD, f"{place} cannot be written: {error.strerror}", advice
        )


def _store(store: Path) -> Iterator[DoctorResult]:
    from memories.cli.store import opened
    from memories.observe.analytics.telemetry_files import read_document, writer_lives

    try:
        with opened(store) as manager:
            tiers = manager.stats().tiers
            words = ", ".join(
                f"{tier.keys:,} keys in {name}" for name, tier in tiers.items() if name.durable
            )
        yield fine("store", words)
        document = read_document(store)
    except MemoriesError as error:
        yield DoctorResult("store", Level.BAD, str(error), f"memories check {store}")
        return
    if document is None:
        yield fine("writer", "none has written telemetry here")
        return
    pid = document.get("pid")
    yield fine("writer", f"pid {pid} has it open" if writer_lives(document) else "not open")
    failures = int(document.get("failures", 0))
    yield judged(
        "failures",
        failures == 0,
        f"{failures} background actions failed since it was opened: "
        f"{document.get('latest_failure')}" if failures else "none since it was opened",
        "nothing was lost; remove the cause (a full disk, a bucket that refuses)",
    )  # fmt: skip


def _space(place: Path) -> Iterator[DoctorResult]:
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    yield judged(
        "disk space",
        free >= ENOUGH_BYTES,
        f"{format_size(free)} free of {format_size(status.f_blocks * status.f_frsize)}",
        "free some space, or reduce cold_memory_size: cold cannot use more than the disk has",
    )
    if status.f_files:
        share = status.f_favail / status.f_files
        yield judged("inodes", share > 0.02, f"{100 * share:.0f} % free", "remove small files")


def _cold_size(place: Path, sizes: StoreSizes) -> DoctorResult:
    status = os.statvfs(place)
    room = status.f_bavail * status.f_frsize + sizes.used[TierName.COLD]
    wanted = sizes.configured[TierName.COLD]
    return judged(
        "cold size",
        wanted <= room or sizes.by_default,
        f"cold may take {format_size(wanted)} ({sizes.origin}), the disk has room for "
        f"{format_size(room)}",
        f"cold_memory_size is an upper limit, and cold can hold {format_size(room)}; set it to "
        "what other programs leave",
    )


def _kind(place: Path) -> DoctorResult:
    from memories.backends.disk.file_system import is_in_ram, kind_of, remote_kind

    kind = remote_kind(place)
    if kind is None and is_in_ram(place):
        return DoctorResult(
            "file system", Level.WARN, f"{place} is in RAM ({kind_of(place)})",
            "values that move to cold take RAM there, and a reboot loses them: give a storage_path "
            "on a disk, below /var/tmp or ~/.cache for example, or set TMPDIR=/var/tmp",
        )  # fmt: skip
    return judged(
        "file system",
        kind is None,
        f"local ({kind_of(place) or 'unknown'})" if kind is None else f"on the network ({kind})",
        "keep the store on a local disk: locks and syncs are less reliable on a network",
    )


def _speed(place: Path) -> Iterator[DoctorResult]:
    """Write, sync and read one file, and compare its time with the clock."""
    block = os.urandom(1_000_000)
    with tempfile.NamedTemporaryFile(prefix=".memories-doctor-", dir=place) as file:
        started = time.perf_counter()
        for _ in range(TRIAL_BYTES // len(block)):
            file.write(block)
        file.flush()
        sync(file.fileno())
        rate = TRIAL_BYTES / (time.perf_counter() - started)
        skew = abs(os.fstat(file.fileno()).st_mtime - time.time())
        file.write(b"x")
        file.flush()
        started = time.perf_counter()
        sync(file.fileno())
        seconds = time.perf_counter() - started
    yield judged(
        "disk speed",
        rate >= SLOW_BYTES_PER_SECOND,
        f"writes {format_size(rate)}/s, synced",
        "values that move to cold wait for it; use a faster disk, or a larger warm tier",
    )
    yield judged(
        "sync",
        seconds <= SLOW_SYNC_SECONDS,
        f"{1000 * seconds:.1f} ms",
        'durability="full" waits that long for each store',
    )
    yield judged(
        "disk clock",
        skew <= CLOCK_SECONDS,
        f"{skew:.1f} s from this machine's",
        "set both clocks (NTP): times to live go by this machine's",
    )
