"""Sizes up to 3 GB, in steps of three, through every tier, move, snapshot and node.

Takes 4.4 times the largest value in RAM, a quarter of that mapped files, and 25 GB of disk:
13 GB at 3 GB. TORTURE_LARGEST_BYTES makes it smaller.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.promises.test_sizes import Sweep, roomy, through_nodes, tight
from tests.support.nodes.fixtures import node as node

from memories.cluster.local import LocalServer

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

LARGEST = int(os.environ.get("TORTURE_LARGEST_BYTES", "3000000000"))
SIZES = [size for size in (*(3**power for power in range(15, 20)), 3 * 10**9) if size <= LARGEST]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spare", [True, False], ids=["roomy", "tight"])
def test_a_value_of_any_size_comes_through(tmp_path: Path, size: int, spare: bool) -> None:
    """The sweep of the promises, where disks and memories become the limit."""
    Sweep(tmp_path, size, roomy(size) if spare else tight(size), spare=spare).run()


def test_a_value_of_any_size_comes_through_a_node(node: LocalServer) -> None:
    """A Redis string ends at 512 MB; a value does not."""
    through_nodes(node, SIZES)
