"""Bootstrap and discovery on plain servers: finds the member list, or creates the first one.

The member list is stored on the nodes. The nodes that a manager is given are only asked for it; if
none of them has a list, they become the members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from memories.cluster.client import scripts
from memories.cluster.client.address import host_and_port
from memories.cluster.client.fanout import NodeRequest, ask_nodes
from memories.cluster.client.node import EvictingNodeError, Node
from memories.cluster.client.resp import Command, ReplyError
from memories.cluster.incarnation import INCARNATION_KEY, JOINING, UP, Incarnation, read_incarnation
from memories.cluster.quorum.members import MEMBERS_KEY, NAME_KEY, MemberList, Members
from memories.cluster.quorum.vouchers import VOUCHERS_KEY, read_vouchers
from memories.cluster.reasons import join_reasons
from memories.errors import InvalidOptionError, MemoriesError, UnavailableError
from memories.foundation.logging import logger

_DISCOVERY_SECONDS = 1.5
_MOST_BYTES = 4 << 20  # Of a member list; more than thousands of members need.
_ASKED = (MEMBERS_KEY, INCARNATION_KEY, NAME_KEY, VOUCHERS_KEY)
_QUESTIONS = tuple(("GET", key) for key in _ASKED)


class DiscoveryReply(NamedTuple):
    """The reply of a node to discovery."""

    node: Node
    run_id: str
    member_list: MemberList | None
    incarnation: Incarnation | None
    name: str  # Of the server in the member list; empty if it has none.
    vouchers: bytes = b""

    def is_up_to_date(self, epoch: int) -> bool:
        """Return whether the node has all that it should have under that member list."""
        return self.incarnation == Incarnation(UP, self.run_id, epoch)


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
        states = [(reply, UP) for reply in discovered]
        for error in publish_each(members, states, member_list).values():
            raise error
        discovered, reasons = discover(members, [reply.node for reply in discovered])
    identify(members, member_list, discovered)
    _check(member_list, members)
    _learn(members, member_list, discovered)
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


def refresh(members: Members) -> MemberList | None:
    """Apply a newer member list, if a node has one; return the newest that was found."""
    discovered, _ = discover(members, list(members.all_members()))
    member_list = newest_member_list(discovered)
    if member_list is not None and member_list.epoch >= members.epoch:
        _learn(members, member_list, discovered)
        members.apply(member_list)
    return member_list


def discover(
    members: Members, nodes: Sequence[Node]
) -> tuple[list[DiscoveryReply], dict[str, str]]:
    """Ask nodes for their member list and incarnation; return the replies, and errors by name.

    Raises:
        EvictingNodeError: a node would drop values silently.
    """
    discovered: list[DiscoveryReply] = []
    reasons = {node.name: "it did not answer in time" for node in nodes}
    questions = [(node, _QUESTIONS) for node in nodes]
    for answer in ask_nodes(questions, members.monotonic, _DISCOVERY_SECONDS):
        _record(answer, discovered, reasons)
    return discovered, reasons


def newest_member_list(discovered: Sequence[DiscoveryReply]) -> MemberList | None:
    """Return the newest member list among the replies; None if no node has one."""
    known = [reply.member_list for reply in discovered if reply.member_list is not None]
    return max(known, key=lambda member_list: member_list.epoch, default=None)


def pack_member_list(member_list: MemberList) -> bytes:
    """Return the bytes of a member list, as nodes store it."""
    return msgspec.json.encode(member_list)


def read_member_list(text: bytes | None) -> MemberList | None:
    """Return the member list that `text` stores; None if it is missing or damaged.

    A name that is no address counts as damage: it would be shown, and connected to.
    """
    if not isinstance(text, bytes) or len(text) > _MOST_BYTES:
        return None
    try:
        member_list = msgspec.json.decode(text, type=MemberList)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    names = {*member_list.nodes, *member_list.target, *member_list.lost_names}
    sound = member_list.epoch >= 0 < member_list.copies and all(map(_is_member_name, names))
    return member_list if sound else None


def _is_member_name(name: str) -> bool:
    if name.startswith("unix://"):
        return name.isprintable()
    return host_and_port(name) is not None


def publish(
    members: Members, member_list: MemberList, *, before: Sequence[str], new_node_state: str
) -> dict[str, str]:
    """Store a new member list on nodes, and return the errors by name.

    A node that was up to date under the list before stays up to date, and one that was in no list
    before gets `new_node_state`; any other must be brought up to date first.
    """
    names = dict.fromkeys((*before, *member_list.all_names))
    # A node that misses one list counts as not up to date under the next one, and its connection
    # may have been closed since it was used last. So those that fail are asked once more.
    discovered, reasons = discover(members, [members.nodes[name] for name in names])
    if reasons:
        more, reasons = discover(
            members, [members.nodes[name] for name in names if name in reasons]
        )
        discovered += more
    states = []
    for reply in discovered:
        fresh = reply.member_list is None and reply.node.name not in before
        kept = fresh or reply.is_up_to_date(member_list.epoch - 1)
        if reply.member_list == member_list:  # Of an earlier attempt that too few nodes stored.
            kept = kept or reply.is_up_to_date(member_list.epoch)
        states.append((reply, new_node_state if kept else JOINING))
    errors = publish_each(members, states, member_list)
    if errors:
        again = [(reply, state) for reply, state in states if reply.node in errors]
        errors = publish_each(members, again, member_list)
    reasons.update({node.name: str(error) for node, error in errors.items()})
    share_vouchers(members, member_list, discovered)
    return reasons


def publish_each(
    members: Members, states: Sequence[tuple[DiscoveryReply, str]], member_list: MemberList
) -> dict[Node, MemoriesError]:
    """Store the member list and the incarnations on nodes, unless they have changed meanwhile.

    Returns the errors of those that do not answer, or refuse a command.
    """
    requests: list[tuple[Node, Sequence[Command]]] = []
    errors: dict[Node, MemoriesError] = {}
    for reply, state in states:
        node = reply.node
        old_list = b"" if reply.member_list is None else pack_member_list(reply.member_list)
        old_incarnation = b"" if reply.incarnation is None else reply.incarnation.text
        incarnation = Incarnation(state, reply.run_id, member_list.epoch).text
        errors[node] = UnavailableError(f"the node {node.name} did not answer in time")
        commands = (
            ("SET", NAME_KEY, node.name),
            scripts.SWAP.evaluated([MEMBERS_KEY], old_list, pack_member_list(member_list)),
            scripts.SWAP.evaluated([INCARNATION_KEY], old_incarnation, incarnation),
        )
        requests.append((node, commands))
    for answer in ask_nodes(requests, members.monotonic, _DISCOVERY_SECONDS):
        del errors[answer.node]
        if (error := answer.first_error) is not None:
            errors[answer.node] = error
    return errors


def _learn(members: Members, member_list: MemberList, discovered: Sequence[DiscoveryReply]) -> None:
    """Learn from the vouchers on nodes which members may get the credentials."""
    strangers = set(member_list.all_names) - members.named
    if strangers and members.vouchers.matter:
        for reply in discovered:
            members.vouchers.learn(read_vouchers(reply.vouchers), strangers)


def share_vouchers(
    members: Members, member_list: MemberList, discovered: Sequence[DiscoveryReply]
) -> None:
    """Vouch on the nodes for the members that our caller has named, where that is not done yet.

    Vouchers of our key for other members are renewed. A node that does not take one has it from
    another manager, or gets it the next time.
    """
    requests = []
    for reply in discovered:
        present = read_vouchers(reply.vouchers)
        added = members.vouchers.missing(present, member_list.all_names, members.named)
        if added:
            data = members.vouchers.pack(present, added, member_list.all_names)
            swap = scripts.SWAP.evaluated([VOUCHERS_KEY], reply.vouchers, data)
            requests.append((reply.node, [swap]))
    for answer in ask_nodes(requests, members.monotonic, _DISCOVERY_SECONDS):
        if (error := answer.first_error) is not None:
            logger.debug("%s took no vouchers: %s", answer.node.name, error)


def _record(answer: NodeRequest, discovered: list[DiscoveryReply], reasons: dict[str, str]) -> None:
    name = answer.node.name
    if isinstance(answer.error, EvictingNodeError):
        raise answer.error
    if (error := answer.first_error) is not None:
        reasons[name] = str(error)
        return
    member_list, incarnation, stored_name, vouchers = answer.replies
    if not all(isinstance(reply, bytes | None) for reply in answer.replies):
        reasons[name] = "it sent something else than a text"
        return
    del reasons[name]
    discovered.append(
        DiscoveryReply(
            answer.node,
            answer.run_id,
            read_member_list(member_list),
            read_incarnation(incarnation),
            (stored_name or b"").decode("utf-8", "replace"),
            vouchers or b"",
        )
    )


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
