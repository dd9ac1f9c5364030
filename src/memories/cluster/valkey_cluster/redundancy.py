"""How many copies the nodes of a Cluster can hold now: fewer while replicas are gone.

A write that fewer replicas have confirmed than it needs is acknowledged only if the others cannot
take over from the primary: they do not answer, or are copying it. And a majority of all primaries,
or Sentinels, must see the primary alive: one that was cut off from them loses what it accepts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from memories.cluster.client.node import Node, info_number, parse_info
from memories.cluster.client.resp import ReplyError
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.valkey_cluster.slots import Shard
from memories.errors import UnavailableError
from memories.foundation.logging import logger

_ASK_SECONDS = 0.5
_YEARS = 1e9  # In seconds.
_WARN_SECONDS = 60.0  # Between two warnings about one primary.
_VALID_SECONDS = 3.0  # A finding is used for so long; the maintenance looks again before.
_PATIENCE_SECONDS = 2.0  # A replica that restarts or reconnects needs a second.
_AGAIN_SECONDS = 0.5  # Two writes of one shard do not look again within this time.


class _Finding(NamedTuple):
    replicas: int  # That a write can have.
    at: float


class Redundancy:
    """The number of replicas that must confirm a write to each shard. Safe for many threads.

    Args:
        shards: The nodes, and which of them serves which slot.
        strict: Require all replicas always.
    """

    def __init__(self, shards: Shards, *, strict: bool) -> None:
        self._shards = shards
        self._strict = strict
        self._found: dict[str, _Finding] = {}  # By primary.
        self._short_writes: Counter[str] = Counter()
        self._warned_at: dict[str, float] = {}

    @property
    def wanted(self) -> int:
        """Return how many replicas should have every write."""
        return self._shards.copies - 1

    @property
    def patience_seconds(self) -> float:
        """Return how long a write is sent again that too few replicas have confirmed."""
        return 0.0 if self._strict else _PATIENCE_SECONDS

    def needed(self, primary: str) -> int:
        """Return how many replicas must confirm a write to a primary now."""
        found = self._found.get(primary)
        if found is None or self._shards.monotonic() > found.at + _VALID_SECONDS:
            return self.wanted
        return found.replicas

    def accepts(self, primary: str, confirmed: int) -> bool:
        """Return whether a write that so many replicas confirmed may be acknowledged."""
        if confirmed >= self.wanted:
            return True
        if self._strict or confirmed < self._look(primary):
            return False
        self._short_writes[primary] += 1
        now = self._shards.monotonic()
        if now >= self._warned_at.get(primary, float("-inf")) + _WARN_SECONDS:
            self._warned_at[primary] = now
            logger.warning(
                "%s: values are on %d of %d nodes, because replicas are gone; a failure of the "
                "primary now would lose them; add a replica, or pass strict_replication=True to "
                "refuse such writes",
                primary,
                confirmed + 1,
                self._shards.copies,
            )
        return True

    def short_writes(self, primary: str) -> int:
        """Return how many writes to a primary were acknowledged with fewer copies."""
        return self._short_writes[primary]

    def refresh(self) -> None:
        """Look again at the shards that were short of replicas; the maintenance calls this."""
        now = self._shards.monotonic()
        for primary, found in list(self._found.items()):
            if found.replicas == self.wanted or now > found.at + 10 * _VALID_SECONDS:
                self._found.pop(primary, None)
            else:
                self._look(primary)

    def _look(self, primary: str) -> int:
        found = self._found.get(primary)
        now = self._shards.monotonic()
        if found is None or now > found.at + _AGAIN_SECONDS:
            found = _Finding(self._count_replicas(primary), now)
            self._found[primary] = found
        return found.replicas

    def _count_replicas(self, primary: str) -> int:
        """Return how many replicas of a primary could confirm a write now."""
        self._shards.refresh()
        shards = self._shards.slot_map.all_shards()
        shard = next((one for one in shards if one.primary == primary), None)
        primaries = [one.primary for one in shards]
        alive = self._shards.topology.is_alive(primary, primaries, self._shards.views)
        if shard is None or not alive:
            return self.wanted
        state = self._ask_replication(self._shards.node(primary)) or {}
        feeding = any("state=" in v and "state=online" not in v for v in state.values())
        able = sum(
            self._could_take_over(self._shards.node(name), feeding) for name in shard.replicas
        )
        return min(self.wanted, able)

    def _could_take_over(self, replica: Node, feeding: bool) -> bool:
        """Return whether a replica answers and has a copy, be it an old one.

        Args:
            replica: The replica.
            feeding: Whether its primary is sending a first copy to some replica.
        """
        info = self._ask_replication(replica)
        if info is None or info.get("master_link_status", "up") == "up":
            return info is not None
        down_seconds = info_number(info, "master_link_down_since_seconds")
        never_linked = down_seconds < 0 or down_seconds > _YEARS  # Since 1970, on older servers.
        copying = feeding and info.get("master_sync_in_progress") == "1"
        return not (never_linked or copying)

    def _ask_replication(self, node: Node) -> dict[str, str] | None:
        try:
            (info,) = node.pipeline([("INFO", "replication")], seconds=_ASK_SECONDS, strict=True)
        except (UnavailableError, ReplyError) as error:
            node.last_error = str(error)
            return None
        return parse_info(info)


def count_missing(
    states: Mapping[str, dict[str, Any]], shards: Iterable[Shard], wanted: int
) -> None:
    """Set in the state of each primary of a Cluster how many of its `wanted` replicas are gone."""
    for shard in shards:
        if shard.primary in states:
            replicas = [states[name] for name in shard.replicas if name in states]
            ready = sum(one["online"] and one["up_to_date"] for one in replicas)
            states[shard.primary]["missing_copies"] = max(0, wanted - ready)
