"""Lets tombstones vanish from plain servers, once all nodes of their keys have them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from memories.cluster.client import scripts
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.quorum.admission import survey
from memories.cluster.quorum.members import Members
from memories.cluster.run_script import run_script
from memories.cluster.settling import bury, vanish
from memories.cluster.versions import RegisterVersion
from memories.errors import UnavailableError


def settle(members: Members, ended: Mapping[bytes, RegisterVersion]) -> set[bytes]:
    """Let these tombstones vanish, and return the names that need nothing more.

    Nothing happens while a node is missing or not up to date, or the members are being changed: an
    older version on that node would come back.
    """
    nodes = list(members.all_members())
    member_list = members.current
    if member_list.target or not all(node.usable for node in nodes):
        return set()
    try:
        discovered, _ = survey(members, nodes, "a settlement")
        ready = {one.node.name for one in discovered if one.is_up_to_date(members.epoch)}
        if ready != {node.name for node in nodes} or members.current != member_list:
            return set()
        places: dict[Node, dict[bytes, RegisterVersion]] = defaultdict(dict)
        for name, version in ended.items():
            for place in members.preference_lists(name)[0].nodes:
                places[members.nodes[place]][name] = version
        newer: set[bytes] = set()
        for node, some in places.items():
            newer.update(name for name, stored in bury(node, some).items() if not stored)
        for node in nodes:
            _drop_older(node, {n: v for n, v in ended.items() if n not in places[node]})
        for node, some in places.items():
            vanish(node, {name: version for name, version in some.items() if name not in newer})
    except (UnavailableError, ReplyError):
        return set()  # The node has noted why.
    return set(ended)


def _drop_older(node: Node, ended: Mapping[bytes, RegisterVersion]) -> None:
    """Remove older versions from a node that the keys do not prefer."""
    if not ended:
        return
    held = node.pipeline([("GETRANGE", name, 0, 31) for name in ended], strict=True)
    for (name, version), there in zip(ended.items(), held, strict=True):
        if there and there < version.text:
            run_script(node, scripts.DROP, [name], there)
