"""Lists the registers that the nodes hold.

The one idea: what was acknowledged lies on as many nodes as there are copies, so all but one fewer
of them, up to date, know of everything between them.
"""

from __future__ import annotations

from collections.abc import Iterator

from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.client.scan import scan_node
from memories.cluster.incarnation import INCARNATION_KEY, UP, Incarnation, read_incarnation
from memories.cluster.quorum.members import Members
from memories.cluster.register_format import PREFIX
from memories.errors import UnavailableError


def scan_members(members: Members, prefix: bytes) -> Iterator[list[bytes]]:
    """Yield batches of the names of registers on all nodes; a name comes once per copy.

    Raises:
        UnavailableError: so many nodes are missing that an acknowledged write may be on them only.
    """
    reasons: dict[str, str] = {}
    for node in members.all_members():
        if not (node.usable or node.due):
            reasons[node.name] = node.last_error
            continue
        try:
            yield from scan_node(node, PREFIX + prefix)
            if not is_up(node, members.epoch):
                reasons[node.name] = "it restarted, and is not yet up to date"
        except (UnavailableError, ReplyError) as error:
            reasons[node.name] = str(error)
    for nodes in members.current.lists:
        missing = reasons.keys() & set(nodes)
        if len(missing) >= members.current.copies:
            raise UnavailableError(
                f"the keys could not all be listed, for {len(missing)} nodes are missing: "
                + "; ".join(f"{name}: {reasons[name]}" for name in sorted(missing))
            )


def is_up(node: Node, epoch: int) -> bool:
    """Return whether a node's mark says that it knows of all that was its to take."""
    with node.acquire() as connection:
        incarnation = read_incarnation(connection.call("GET", INCARNATION_KEY))
        return incarnation == Incarnation(UP, node.run_id_of(connection), epoch)
