"""The checked options of a manager, and the checks of single options."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from memories.errors import InvalidOptionError, InvalidOptionTypeError
from memories.foundation.machine import disk_bytes, ram_bytes
from memories.foundation.units import parse_size, share_of
from memories.model.rules import Rule, check_rules
from memories.model.tiers import StoreTier, TierName
from memories.options.choices import Durability, DurableText, MemoryText, OnFull, Prefetch
from memories.sealing.master_key import EncryptionKey

DEFAULT_POLICY = "auto"
# What "auto" takes of the RAM, or of the disk.
AUTO_SHARES = {TierName.HOT: 0.1, TierName.WARM: 0.4, TierName.COLD: 0.5}
DEFAULT_COMPRESSION = {TierName.COLD: "auto", TierName.GLACIER: "high"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every option of a manager, in bytes and names."""

    capacities: dict[TierName, int]
    with_units: frozenset[TierName] = field(compare=False)  # Sizes that were given as a text.
    glacier_enabled: bool
    storage_path: Path | None
    glacier_url: str | None
    storage_options: Mapping[str, Any] = field(repr=False)  # May hold credentials.
    hot_device: object  # "auto", "cpu", "cuda:0" or a `Device`; `devices` checks it.
    policies: dict[TierName, str]
    compression: dict[TierName, str]
    durability: Durability
    exit_flush_seconds: float
    write_through: bool
    drop_when_full: bool
    prefetch: str
    rules: tuple[Rule, ...]
    read_only: bool
    takeover: bool
    trusted_keys: tuple[str, ...] = field(repr=False)  # Secrets.
    temporary_in: Path | None = None  # Where a store without a path makes its directory.
    encryption: EncryptionKey | None = None


def check_size(tier: TierName, size: float | str, path: Path | None) -> int:
    """Return the size of a tier in bytes; a share is one of the RAM, or of the disk of `path`.

    Raises:
        InvalidOptionError: it is not a size, or a share above 100 %.
    """
    name = f"{tier}_memory_size"
    share = share_of(size, AUTO_SHARES[tier])
    if share is None:
        return parse_size(size, name=name)
    if share > 1:
        raise InvalidOptionError(f"{name}={size!r} is more than there is: give 100% at most")
    if tier.durable:
        from tempfile import gettempdir  # Here: it loads much, and a share is rarely given.

        whole = disk_bytes(path or Path(gettempdir()))
        if whole is None:
            raise InvalidOptionError(f"{name}={size!r}: the size of the disk is unknown; write it")
        return int(share * whole)
    return int(share * ram_bytes())


_TIERS = {name.value: name for name in TierName}


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return `value` if it is one of `allowed`, or raise naming the nearest of them."""
    if isinstance(value, str) and value in allowed:
        return str(value)
    from difflib import get_close_matches  # Imported at use: few options are wrong.

    near = get_close_matches(str(value), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InvalidOptionError(f"{name}={value!r} must be one of {', '.join(allowed)}{hint}")


def check_tier(value: Any, name: str = "tier") -> TierName:
    """Return the tier that `value` names."""
    tier = _TIERS.get(value) if isinstance(value, str) else None
    return tier or TierName(check_choice(name, value, tuple(TierName)))


def check_store_tier(value: Any) -> StoreTier:
    """Return `value` if it names a tier, or is `"auto"` for the fastest with room."""
    if value != "auto":
        check_tier(value)
    return cast("StoreTier", value)


def check_path(value: str | os.PathLike[str] | None) -> Path | None:
    """Return `value` as an absolute path."""
    if value is None:
        return None
    check_not_empty("storage_path", value)
    try:
        return Path(value).expanduser().absolute()
    except (TypeError, RuntimeError) as error:
        raise InvalidOptionError(f"storage_path={value!r} is not a path: {error}") from error


def check_not_empty(name: str, value: object) -> None:
    """Raise InvalidOptionError for an empty path or URL, which would be the current directory."""
    if isinstance(value, str | bytes) and not value.strip():
        raise InvalidOptionError(
            f"{name}={value!r} is empty: is a variable not set? give '.' for the current "
            "directory, or None for no directory"
        )


def check_url(value: str | os.PathLike[str] | None) -> str | None:
    """Return `value` as a string."""
    if value is None:
        return None
    check_not_empty("glacier_url", value)
    return str(value)


def check_mapping(name: str, value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, an empty one if it is None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidOptionError(f"{name} must be a mapping, like a dict, not {value!r:.60}")
    return value


def check_several(name: str, values: Any) -> Iterable[Any]:
    """Return `values` if they can be iterated and are not one text, whose letters would be taken.

    Raises:
        InvalidOptionTypeError: it is one text, or nothing that can be iterated.
    """
    if isinstance(values, str | bytes | os.PathLike):
        raise InvalidOptionTypeError(
            f"{name}={values!r:.60} is one value and not several: write [{values!r:.60}]"
        )
    if not isinstance(values, Iterable):
        raise InvalidOptionTypeError(f"{name}={values!r:.60} must be a list, or another iterable")
    return values


def check_items(name: str, values: Any) -> Mapping[str, Any]:
    """Return `values` if it is a mapping.

    Raises:
        InvalidOptionTypeError: it is not; the message says how to make one.
    """
    if not isinstance(values, Mapping):
        raise InvalidOptionTypeError(
            f"{name} must be a mapping of keys to values, like a dict, not a "
            f"{type(values).__name__}; dict(...) makes one of pairs"
        )
    return values


def check_flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise InvalidOptionError(f"{name} must be True or False, not {value!r:.60}")
    return value


def check_seconds(name: str, value: float | None) -> float | None:
    """Return `value` if it is a positive number of seconds, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidOptionError(f"{name}={value!r:.60} must be a positive number of seconds")
    return float(value)


def check_port(value: Any) -> int:
    """Return `value` if it is the number of a port, or 0 for any that is free."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOptionTypeError(f"port={value!r:.60} must be a number from 0 to 65535")
    if not 0 <= value <= 65_535:
        raise InvalidOptionError(f"port={value} must be a number from 0 (any free port) to 65535")
    return value


def check_duration(name: str, value: float) -> float:
    """Return `value` if it is a finite number of seconds, 0 or more."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise InvalidOptionError(f"{name}={value!r:.60} must be a number of seconds, 0 or more")
    return float(value)


def check_policies(value: str | Mapping[MemoryText, str]) -> dict[TierName, str]:
    """Return the name of each volatile tier's eviction policy."""
    if isinstance(value, str):
        return dict.fromkeys((TierName.HOT, TierName.WARM), value)
    names = dict.fromkeys((TierName.HOT, TierName.WARM), DEFAULT_POLICY)
    for tier, policy in check_mapping("eviction_policy", value).items():
        name = check_tier(tier, "eviction_policy's tier")
        if name.durable:
            raise InvalidOptionError(
                f"eviction_policy cannot be set for {name}: a durable tier keeps no order of its "
                "keys in RAM, and evicts the coldest keys of a sample"
            )
        names[name] = policy
    return names


def check_compression(value: Mapping[DurableText, str] | None) -> dict[TierName, str]:
    """Return the compression of each durable tier."""
    names = dict(DEFAULT_COMPRESSION)
    for tier, compression in check_mapping("compression", value).items():
        name = check_tier(tier, "compression's tier")
        if not name.durable:
            raise InvalidOptionError(f"compression cannot be set for {name}: it holds live objects")
        names[name] = DEFAULT_COMPRESSION[name] if compression == "auto" else compression
    return names


def _is_archive_reader(read_only: object, storage_path: object, glacier_url: object) -> bool:
    """Return whether only an archive is read: `glacier_memory_enabled` is implied then."""
    return read_only is True and storage_path is None and glacier_url is not None


def make_settings(
    hot_memory_size: float | str,
    warm_memory_size: float | str,
    cold_memory_size: float | str,
    glacier_memory_enabled: bool,
    *,
    storage_path: str | os.PathLike[str] | None,
    glacier_url: str | os.PathLike[str] | None,
    storage_options: Mapping[str, Any] | None,
    hot_device: object,
    eviction_policy: str | Mapping[MemoryText, str],
    compression: Mapping[DurableText, str] | None,
    durability: Durability,
    exit_flush_seconds: float,
    write_through: bool,
    on_full: OnFull,
    prefetch: Prefetch,
    rules: Iterable[Rule],
    read_only: bool,
    takeover: bool,
    trusted_keys: Iterable[str],
    temporary_in: Path | None = None,
    encryption: object = None,
) -> Settings:
    """Check every option and return them as `Settings`.

    Raises:
        InvalidOptionError: an option is invalid; the message names it.
    """
    sizes = {
        TierName.HOT: hot_memory_size,
        TierName.WARM: warm_memory_size,
        TierName.COLD: cold_memory_size,
    }
    return Settings(
        capacities={
            tier: check_size(tier, size, check_path(storage_path)) for tier, size in sizes.items()
        },
        with_units=frozenset(tier for tier, size in sizes.items() if isinstance(size, str)),
        glacier_enabled=check_flag("glacier_memory_enabled", glacier_memory_enabled)
        or _is_archive_reader(read_only, storage_path, glacier_url),
        storage_path=check_path(storage_path),
        glacier_url=check_url(glacier_url),
        storage_options=dict(check_mapping("storage_options", storage_options)),
        hot_device=hot_device,
        policies=check_policies(eviction_policy),
        compression=check_compression(compression),
        durability="full"
        if check_choice("durability", durability, get_args(Durability)) == "full"
        else "relaxed",
        exit_flush_seconds=check_duration("exit_flush_seconds", exit_flush_seconds),
        write_through=check_flag("write_through", write_through),
        drop_when_full=check_choice("on_full", on_full, get_args(OnFull)) == "evict",
        prefetch=check_choice("prefetch", prefetch, get_args(Prefetch)),
        rules=check_rules(check_several("rules", rules)),
        read_only=check_flag("read_only", read_only),
        takeover=check_flag("takeover", takeover),
        trusted_keys=tuple(check_several("trusted_keys", trusted_keys)),
        temporary_in=temporary_in,
        encryption=EncryptionKey.parse(encryption),
    )
