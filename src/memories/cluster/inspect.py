"""Inspects any nodes read-only: their kind, the other members, and the state of each.

It changes nothing on a node; in particular, it does not write a member list to new servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node
from memories.cluster.connect import are_a_cluster, open_nodes, open_sentinels
from memories.cluster.quorum.discovery import refresh
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.vouchers import VoucherKeys
from memories.cluster.status import cluster_node_status, node_status
from memories.cluster.valkey_cluster.redundancy import count_missing
from memories.cluster.valkey_cluster.sentinel import SentinelAddress
from memories.cluster.valkey_cluster.shards import Shards
from memories.cluster.valkey_cluster.topology import ClusterTopology, Topology
from memories.foundation.clock import Clock


class NodeSurvey(NamedTuple):
    """The kind and the states of some nodes."""

    clustered: bool  # Whether they are a Valkey Cluster.
    copies: int | None  # Of each value; None on a Cluster, and on servers without a member list.
    states: dict[str, dict[str, Any]]


def survey_nodes(
    addresses: Sequence[NodeAddress] | SentinelAddress, clock: Clock, keys: VoucherKeys
) -> NodeSurvey:
    """Return the state of nodes and of all other members; `online` is false without an answer.

    Raises:
        InvalidOptionError: some are members of a Valkey Cluster, and some are not.
    """
    if isinstance(addresses, SentinelAddress):
        return _survey_slots(open_sentinels(addresses, clock), clock)
    nodes = open_nodes(addresses, clock, allow_eviction=True)
    try:
        if are_a_cluster(nodes):
            return _survey_slots(ClusterTopology(nodes), clock)
        return _survey_plain(nodes, clock, keys)
    finally:
        for node in nodes:
            node.close()


def _survey_plain(nodes: Sequence[Node], clock: Clock, keys: VoucherKeys) -> NodeSurvey:
    members = Members(nodes, 1, clock=clock, allow_eviction=True, keys=keys)
    try:
        member_list = refresh(members)
        states = {
            node.name: node_status(
                node, clock.monotonic, members.epoch, members.current.membership(node.name)
            )
            for node in members.all_members()
        }
    finally:
        members.close()
    return NodeSurvey(False, member_list.copies if member_list else None, states)


def _survey_slots(topology: Topology, clock: Clock) -> NodeSurvey:
    shards = Shards(topology, 1, monotonic=clock.monotonic, allow_eviction=True)
    try:
        shards.refresh()
        states = {
            node.name: cluster_node_status(node, clock.monotonic) for node in shards.all_nodes()
        }
        count_missing(states, shards.slot_map.all_shards(), shards.most_replicas())
    finally:
        shards.close()
    return NodeSurvey(True, None, states)
