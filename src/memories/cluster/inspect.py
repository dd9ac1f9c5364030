"""A look at any nodes, from outside: what they are, who belongs to them and how they are.

Not a service: it changes nothing on a node, and in particular makes no cluster of nodes that are
none yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from memories.cluster.client.address import NodeAddress
from memories.cluster.connect import are_a_cluster
from memories.cluster.quorum.discovery import discover, newest_member_list
from memories.cluster.quorum.members import Members
from memories.cluster.status import cluster_node_status, node_status
from memories.cluster.valkey_cluster.shards import Shards
from memories.foundation.clock import Clock


class NodeSurvey(NamedTuple):
    """What was found."""

    clustered: bool  # Whether they are a Valkey Cluster.
    copies: int | None  # Of what is stored on plain servers; None where that is for others to say.
    states: dict[str, dict[str, Any]]


def survey_nodes(addresses: Sequence[NodeAddress], clock: Clock) -> NodeSurvey:
    """Ask nodes, and those that belong to them; one that does not answer is not `online`.

    Raises:
        InvalidOptionError: some are members of a Valkey Cluster, and some are not.
    """
    if are_a_cluster(addresses):
        return _survey_slots(addresses, clock)
    return _survey_plain(addresses, clock)


def _survey_plain(addresses: Sequence[NodeAddress], clock: Clock) -> NodeSurvey:
    members = Members(addresses, 1, monotonic=clock.monotonic, allow_eviction=True)
    try:
        discovered, _ = discover(members, list(members.nodes.values()))
        member_list = newest_member_list(discovered)
        if member_list is not None:
            members.apply(member_list)
        states = {
            node.name: node_status(node, clock.monotonic, members.epoch)
            for node in members.all_members()
        }
    finally:
        members.close()
    return NodeSurvey(False, member_list.copies if member_list else None, states)


def _survey_slots(addresses: Sequence[NodeAddress], clock: Clock) -> NodeSurvey:
    shards = Shards(addresses, 1, monotonic=clock.monotonic, allow_eviction=True)
    try:
        shards.refresh()
        states = {
            node.name: cluster_node_status(node, clock.monotonic) for node in shards.all_nodes()
        }
    finally:
        shards.close()
    return NodeSurvey(True, None, states)
