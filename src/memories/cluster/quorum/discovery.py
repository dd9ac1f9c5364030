"""Asks plain servers for the member list and their incarnations, which they store themselves.

Nothing is changed on them here, but for vouchers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from memories.cluster.client import scripts
from memories.cluster.client.address import host_and_port
from memories.cluster.client.fanout import NodeRequest, ask_nodes
from memories.cluster.client.node import EvictingNodeError, Node
from memories.cluster.incarnation import (
    INCARNATION_KEY,
    UP,
    Incarnation,
    next_incarnation,
    read_incarnation,
)
from memories.cluster.quorum.members import MEMBERS_KEY, NAME_KEY, MemberList, Members
from memories.cluster.quorum.vouchers import VOUCHERS_KEY, read_vouchers
from memories.foundation.logging import logger

DISCOVERY_SECONDS = 1.5
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
    texts: tuple[bytes, bytes]  # The list and the incarnation, as they are stored.
    vouchers: bytes = b""

    def is_up_to_date(self, epoch: int) -> bool:
        """Return whether the node has all that it should have under that member list."""
        return self.incarnation == Incarnation(UP, self.run_id, epoch)

    @property
    def must_recover(self) -> bool:
        """Return whether the node has restarted, and older writes must be copied to it."""
        return next_incarnation(self.incarnation, self.run_id, 0).state != UP


def refresh(members: Members) -> MemberList | None:
    """Apply a newer member list, if a node has one; return the newest that was found."""
    discovered, _ = discover(members, list(members.all_members()))
    return apply_newest(members, discovered)


def apply_newest(members: Members, discovered: Sequence[DiscoveryReply]) -> MemberList | None:
    """Apply the newest member list among replies, unless a newer one is known; return it."""
    member_list = newest_member_list(discovered)
    if member_list is not None and member_list.epoch >= members.epoch:
        learn_vouchers(members, member_list, discovered)
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
    for answer in ask_nodes(questions, members.monotonic, DISCOVERY_SECONDS):
        _record(answer, discovered, reasons)
    return discovered, reasons


def newest_member_list(discovered: Sequence[DiscoveryReply]) -> MemberList | None:
    """Return the newest member list among the replies; None if no node has one."""
    known = [reply.member_list for reply in discovered if reply.member_list is not None]
    # Two managers may have begun a change at the same moment: all choose the same one of them.
    return max(known, key=lambda one: (one.epoch, pack_member_list(one)), default=None)


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


def learn_vouchers(
    members: Members, member_list: MemberList, discovered: Sequence[DiscoveryReply]
) -> None:
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
    for answer in ask_nodes(requests, members.monotonic, DISCOVERY_SECONDS):
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
            (member_list or b"", incarnation or b""),
            vouchers or b"",
        )
    )
