"""Finds sizes of tiers that look like a mistake, and says what to write if they are one."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping

from memories.foundation.machine import disk_bytes
from memories.foundation.units import GB, format_size
from memories.foundation.warn_caller import warn_caller
from memories.model.tiers import TierName
from memories.options.settings import Settings

# Larger by this factor than what the machine has is a unit by mistake: MB written as GB.
RAM_FACTOR = 4
DISK_FACTOR = 64
DEFAULTS = {TierName.HOT: 8 * GB, TierName.WARM: 32 * GB, TierName.COLD: 500 * GB}


def warn_of_sizes(settings: Settings, *, device: bool) -> None:
    """Warn of each size that looks like a mistake.

    `device` says that hot is the memory of a GPU, whose size is not known here.
    """
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    sure = settings.with_units | ({TierName.HOT} if device else set())
    disk = disk_bytes(settings.storage_path)
    for doubt in doubts(settings.capacities, ram, disk, sure):
        warn_caller(doubt)


def doubts(
    capacities: Mapping[TierName, int], ram: int, disk: int | None, sure: Collection[TierName] = ()
) -> Iterator[str]:
    """Yield what is doubtful about sizes on a machine with so many bytes of RAM and of disk.

    The unit of the sizes in `sure` was given, or there is nothing to compare them with.
    """
    hot, warm, cold = (capacities[name] for name in (TierName.HOT, TierName.WARM, TierName.COLD))
    if hot > warm > cold:
        yield (
            f"the slower a tier, the smaller it is: hot {format_size(hot)}, warm "
            f"{format_size(warm)}, cold {format_size(cold)}; the order of the sizes is hot, warm, "
            "cold: are they swapped?"
        )
    for name, size in capacities.items():
        if size == DEFAULTS[name] or name in sure:
            continue
        has, factor, what = (
            (disk, DISK_FACTOR, "disk") if name.durable else (ram, RAM_FACTOR, "RAM")
        )
        if has is not None and size > factor * has:
            yield (
                f"{name}_memory_size is {format_size(size)}, and this machine has "
                f"{format_size(has)} of {what}: a number is gigabytes; if megabytes are meant, "
                f"write '{size / GB:g} MB'"
            )
