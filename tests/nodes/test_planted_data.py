"""Forged values on a node: an error of ours, and the connection goes on."""

from __future__ import annotations

import pytest
from tests.nodes.test_replicas import manager_of
from tests.promises.test_planted_data import NAMES, planted

from memories import CorruptDataError
from memories.cluster.local import LocalGroup

pytestmark = pytest.mark.server


@pytest.mark.parametrize("name", NAMES)
def test_a_forged_value_on_a_node_is_refused(plain_nodes: LocalGroup, name: str) -> None:
    """What may write to a node can compute checksums."""
    with manager_of(plain_nodes.names) as manager:
        manager._frames.put("k", [planted(name)])
        for _ in range(2):
            with pytest.raises(CorruptDataError):
                manager.retrieve_distributed("k")
        manager.store_distributed("plain", [1, 2])
        assert [1, 2] == manager.retrieve_distributed("plain")
