"""Opens plain servers for a manager: finds the member list, or makes the given nodes the members.

The nodes that a manager is given are only asked for the list; if none of them has one, they become
the members.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.quorum.admission import give_first_list
from memories.cluster.quorum.discovery import (
    DiscoveryReply,
    discover,
    learn_vouchers,
    newest_member_list,
    share_vouchers,
)
from memories.cluster.quorum.members import NAME_KEY, MemberList, Members
from memories.cluster.reasons import join_reasons
from memories.errors import InvalidOptionError, UnavailableError
from memories.foundation.logging import logger


def bootstrap(members: Members) -> None:
    """Find the member list on the given nodes; if there is none, make these nodes the members.

    Raises:
        UnavailableError: too few nodes answer.
        InvalidOptionError: the values on these nodes have another number of copies, or a node may
            evict values.
    """
    given = list(members.nodes.values())
    discovered, reasons = discover(members, [node for node in given if node.usable])
    reasons.update({node.name: node.last_error for node in given if not node.usable})
    member_list = newest_member_list(discovered)
    if member_list is None:
        _require_enough(members.current, reasons)
        _require_all_copies(members.current, reasons)
        member_list = msgspec.structs.replace(members.current, epoch=1)
        new = {reply.node.name for reply in discovered}
        refusals = give_first_list(members, discovered, member_list, new=new)
        if refusals:
            raise UnavailableError(
                f"the nodes have not become the members: {join_reasons(refusals)}"
            )
        discovered, reasons = discover(members, [reply.node for reply in discovered])
    identify(members, member_list, discovered)
    _check(member_list, members)
    learn_vouchers(members, member_list, discovered)
    members.apply(member_list)
    strangers = [node for node in members.all_members() if node not in given]
    if strangers:
        more, silent = discover(members, strangers)
        discovered, reasons = discovered + more, reasons | silent
    _require_enough(member_list, reasons)
    for reply in discovered:
        reply.node.up_to_date = reply.is_up_to_date(member_list.epoch)
    share_vouchers(members, member_list, discovered)


def identify(
    members: Members, member_list: MemberList, discovered: Sequence[DiscoveryReply]
) -> None:
    """Match the given nodes with the members, by the names that the servers have stored."""
    known = set(member_list.all_names)
    names = {reply.node.address.name: reply.name for reply in discovered if reply.name in known}
    if len(set(names.values())) == len(names):  # Else one has been filled from another's dump.
        members.identify(names)
    for reply in discovered:
        if not reply.name and reply.node.name in known and reply.member_list is not None:
            _store_name(reply.node)


def _store_name(node: Node) -> None:
    """Store on a server by which name the members know it."""
    try:
        node.call("SET", NAME_KEY, node.name)
    except (UnavailableError, ReplyError) as error:
        node.last_error = str(error)  # The next manager tries again.


def _require_enough(member_list: MemberList, reasons: dict[str, str]) -> None:
    lost = member_list.lost_names
    for nodes in member_list.lists:
        missing = sorted(reasons.keys() & set(nodes))
        if missing and len({*missing, *lost.intersection(nodes)}) >= member_list.copies:
            listed = join_reasons({name: reasons[name] for name in missing})
            verb = "does" if len(missing) == 1 else "do"
            most = member_list.copies - 1
            silent = (
                f"{len(missing)} of {len(nodes)} nodes {verb} not answer"
                if len(nodes) > 1
                else "the only node does not answer"
            )
            copies = f"{most + 1} copies at most {most}" if most else "1 copy none"
            raise UnavailableError(f"{silent}, and with {copies} may be missing: {listed}")


def _require_all_copies(given: MemberList, reasons: dict[str, str]) -> None:
    """Raise unless the given nodes, none of which knows of others, can be the members."""
    if given.copies <= len(given.nodes):
        return
    if reasons:
        raise UnavailableError(
            f"none of the nodes that answer knows the members: {join_reasons(reasons)}"
        )
    raise InvalidOptionError(
        f"replication_factor={given.copies} needs at least as many nodes, and {len(given.nodes)} "
        "are given, which know of no others"
    )


def _check(member_list: MemberList, members: Members) -> None:
    copies = members.current.copies
    if member_list.copies != copies:
        raise InvalidOptionError(
            f"replication_factor={copies}, but the values on these nodes have {member_list.copies} "
            "copies; open them with that number"
        )
    non_members = sorted(members.nodes.keys() - set(member_list.all_names))
    if non_members:
        logger.warning(
            "%s: not used, because they are not members of the cluster of %s; call add_node()",
            ", ".join(non_members),
            ", ".join(member_list.all_names),
        )
