"""Opens the first connections to several nodes at once, one thread for each.

Every step of opening one is a round trip. One node after the other, a manager of far nodes would
spend most of its first seconds waiting.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from queue import Empty, SimpleQueue

from memories.cluster.client.node import Node
from memories.errors import MemoriesError, UnavailableError
from memories.foundation.periodic import BackgroundThread

_LATE_SECONDS = 1.0  # Nodes that answer so much later than the others are not waited for.

Opened = tuple[Node, MemoriesError | None]


def open_connections(nodes: Iterable[Node], *, patient: bool = False) -> dict[Node, MemoriesError]:
    """Open a connection to each node that has none, and return the errors.

    A node that takes much longer than the others is not waited for, and counts as failed.

    Args:
        nodes: Those with an idle connection are left out.
        patient: Every step may take as long as the node may take to answer at all.
    """
    lacking = [node for node in nodes if not node.connected]
    opened: SimpleQueue[Opened] = SimpleQueue()
    began = time.monotonic()
    for node in lacking:
        open_one = partial(_open, node, patient, opened)
        if len(lacking) == 1:
            open_one()
        else:
            BackgroundThread(open_one, "nodes-opening").start()
    errors: dict[Node, MemoriesError] = {
        node: UnavailableError(f"the node {node.name} did not answer in time") for node in lacking
    }
    end = began + max((2 * node.address.timeout for node in lacking), default=0.0)
    for _ in lacking:
        try:
            node, error = opened.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            break
        del errors[node]
        if error is not None:
            errors[node] = error
        else:
            end = min(end, began + _LATE_SECONDS + 4 * (time.monotonic() - began))
    return errors


def _open(node: Node, patient: bool, opened: SimpleQueue[Opened]) -> None:
    error: MemoriesError | None = None
    try:
        node.give(node.take(node.address.timeout if patient else None))
    except MemoriesError as fault:
        node.record_failure(fault)
        error = fault
    finally:
        opened.put((node, error))
