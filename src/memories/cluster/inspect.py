"""A look at any nodes, from outside: what they are, who belongs to them and how they are.

Not a service: it changes nothing on a node, and in particular makes no cluster of nodes that are
none yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from memories.cluster.client.address import Address
from memories.cluster.connect import are_a_cluster
from memories.cluster.quorum.discovery import greet, newest_roster
from memories.cluster.quorum.members import Members
from memories.cluster.status import node_status, slot_node_status
from memories.cluster.valkey_cluster.shards import Shards
from memories.foundation.clock import Clock


class Survey(NamedTuple):
    """What was found."""

    clustered: bool  # Whether they are a Valkey Cluster.
    copies: int | None  # Of what is stored on plain servers; None where that is for others to say.
    states: dict[str, dict[str, Any]]


def survey(addresses: Sequence[Address], clock: Clock) -> Survey:
    """Ask nodes, and those that belong to them; one that does not answer is not `online`.

    Raises:
        InvalidOptionError: some are members of a Valkey Cluster, and some are not.
    """
    if are_a_cluster(addresses):
        return _survey_slots(addresses, clock)
    return _survey_plain(addresses, clock)


def _survey_plain(addresses: Sequence[Address], clock: Clock) -> Survey:
    members = Members(addresses, 1, monotonic=clock.monotonic, allow_eviction=True)
    try:
        hellos, _ = greet(members, list(members.nodes.values()))
        roster = newest_roster(hellos)
        if roster is not None:
            members.adopt(roster)
        states = {
            node.name: node_status(node, clock.monotonic, members.epoch)
            for node in members.everyone()
        }
    finally:
        members.close()
    return Survey(False, roster.copies if roster else None, states)


def _survey_slots(addresses: Sequence[Address], clock: Clock) -> Survey:
    shards = Shards(addresses, 1, monotonic=clock.monotonic, allow_eviction=True)
    try:
        shards.refresh()
        states = {node.name: slot_node_status(node, clock.monotonic) for node in shards.everyone()}
    finally:
        shards.close()
    return Survey(True, None, states)
