"""Gives the tests of this folder their nodes."""

from tests.support.nodes.fixtures import (
    _shared_cluster,
    certs,
    cluster_nodes,
    in_front,
    node,
    node_proxy,
    plain_nodes,
    tls_node,
)
from tests.support.nodes.patience import patient_clients

__all__ = [
    "_shared_cluster",
    "certs",
    "cluster_nodes",
    "in_front",
    "node",
    "node_proxy",
    "patient_clients",
    "plain_nodes",
    "tls_node",
]
