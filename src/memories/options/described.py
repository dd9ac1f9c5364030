"""Says in words how a manager is configured, without secrets: for reports and the dashboard."""

from __future__ import annotations

from urllib.parse import urlsplit

from memories.foundation.units import format_size
from memories.model.rules import Rule
from memories.model.tiers import TierName
from memories.options.settings import Settings


def described(settings: Settings) -> dict[str, str]:
    """Return each option that decides where values lie, as text by its name."""
    options = {
        "sizes": ", ".join(
            f"{name} {format_size(size)}" for name, size in settings.capacities.items()
        ),
        "eviction policy": _by_tier(settings.policies),
        "when full": "values leave" if settings.drop_when_full else "an error",
        "write through": "yes" if settings.write_through else "no",
        "durability": settings.durability,
        "compression": _by_tier(settings.compression),
        "prefetch": settings.prefetch,
        "glacier": _archive(settings),
    }
    if settings.rules:
        options["rules"] = "; ".join(_rule(rule) for rule in settings.rules)
    if settings.encryption is not None:
        options["encryption"] = "yes"
    if settings.read_only:
        options["read-only"] = "yes"
    return options


def _by_tier(names: dict[TierName, str]) -> str:
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return ", ".join(f"{tier} {name}" for tier, name in names.items())


def _archive(settings: Settings) -> str:
    """Return where the archive lies; a URL without its user, password and query."""
    if not settings.glacier_enabled:
        return "off"
    if settings.glacier_url is None:
        return "a local directory"
    parts = urlsplit(settings.glacier_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _rule(rule: Rule) -> str:
    terms = {
        "tier": rule.tier, "from": rule.min_tier, "down to": rule.max_tier, "ttl": rule.ttl,
        "to": rule.move_to, "after": rule.after, "quota": rule.quota or None,
    }  # fmt: skip
    words = [f"{name} {value}" for name, value in terms.items() if value is not None]
    return f"{rule.prefix or '(all)'}: {', '.join([*words, *(['pinned'] if rule.pin else [])])}"
