"""How a cluster of plain servers begins, and how a manager finds out who its members are.

Not the protocol of reads and writes. The one idea: the list of members lies on the nodes; what a
manager is given are places to ask for it, and only a cluster that has none takes the given list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from memories.cluster.client import scripts
from memories.cluster.client.fanout import NodeRequest, RequestRound
from memories.cluster.client.node import EvictingNodeError, Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.incarnation import INCARNATION_KEY, JOINING, UP, Incarnation, read_incarnation
from memories.cluster.quorum.members import MEMBERS_KEY, MemberList, Members
from memories.errors import InvalidOptionError, UnavailableError
from memories.foundation.logging import logger

_GREETING_SECONDS = 1.5


class DiscoveryReply(NamedTuple):
    """What a node says when it is first asked."""

    node: Node
    life: str
    roster: MemberList | None
    mark: Incarnation | None


def bootstrap(members: Members) -> None:
    """Learn who the members are, or make the nodes that were given a cluster.

    Raises:
        UnavailableError: too few nodes answer to know.
        InvalidOptionError: the nodes are members of a cluster of another kind, or would lose data.
    """
    hellos, reasons = discover(members, list(members.nodes.values()))
    roster = newest_member_list(hellos)
    if roster is None:
        _require_enough(members.roster, reasons)
        roster = msgspec.structs.replace(members.roster, epoch=1)
        for hello in hellos:
            publish_to(hello, roster, UP)
    _check(roster, members)
    members.adopt(roster)
    hellos, reasons = discover(members, list(members.everyone()))
    _require_enough(roster, reasons)
    for hello in hellos:
        hello.node.well = is_up(hello, roster.epoch)


def refresh(members: Members) -> None:
    """Learn of a newer list of members from the nodes."""
    hellos, _ = discover(members, list(members.everyone()))
    roster = newest_member_list(hellos)
    if roster is not None and roster.epoch > members.epoch:
        members.adopt(roster)


def discover(
    members: Members, nodes: Sequence[Node]
) -> tuple[list[DiscoveryReply], dict[str, str]]:
    """Ask nodes for what they know, and return it, and why others do not answer.

    Raises:
        EvictingNodeError: one would drop values silently.
    """
    hellos: list[DiscoveryReply] = []
    reasons = {node.name: "it did not answer in time" for node in nodes}
    with RequestRound(members.monotonic) as round_:
        for node in nodes:
            round_.ask(node, lambda life: [("GET", MEMBERS_KEY), ("GET", INCARNATION_KEY)])
        while answers := round_.wait(_GREETING_SECONDS):
            for answer in answers:
                _hear(answer, hellos, reasons)
    return hellos, reasons


def is_up(hello: DiscoveryReply, epoch: int) -> bool:
    """Return whether a node says that it knows of all that was its to take."""
    return hello.mark == Incarnation(UP, hello.life, epoch)


def newest_member_list(hellos: Sequence[DiscoveryReply]) -> MemberList | None:
    """Return the newest list of members that any node has."""
    known = [hello.roster for hello in hellos if hello.roster is not None]
    return max(known, key=lambda roster: roster.epoch, default=None)


def pack_member_list(roster: MemberList) -> bytes:
    """Return the list of members as it lies on a node."""
    return msgspec.json.encode(roster)


def read_member_list(text: bytes | None) -> MemberList | None:
    """Return the list of members in `text`; None if it is none."""
    try:
        return msgspec.json.decode(text or b"", type=MemberList)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def publish(
    members: Members, roster: MemberList, *, everyone: Sequence[str], newcomers: str
) -> dict[str, str]:
    """Tell nodes of a new list of members, and return why some could not be told.

    A node that was up to date under the list before stays so, and one that was in no list before
    gets the state of `newcomers`; any other must be brought up to date first.
    """
    names = dict.fromkeys((*everyone, *roster.everyone))
    hellos, reasons = discover(members, [members.nodes[name] for name in names])
    for hello in hellos:
        fresh = hello.roster is None and hello.node.name not in everyone
        state = newcomers if fresh or is_up(hello, roster.epoch - 1) else JOINING
        try:
            publish_to(hello, roster, state)
        except (UnavailableError, ReplyError) as error:
            reasons[hello.node.name] = str(error)
    return reasons


def publish_to(hello: DiscoveryReply, roster: MemberList, state: str) -> None:
    """Give one node the list of members and its mark, unless somebody else has meanwhile.

    Raises:
        UnavailableError: it does not answer.
        ReplyError: it refuses.
    """
    old_roster = b"" if hello.roster is None else pack_member_list(hello.roster)
    old_mark = b"" if hello.mark is None else hello.mark.text
    mark = Incarnation(state, hello.life, roster.epoch)
    hello.node.call(*scripts.SWAP.call([MEMBERS_KEY], old_roster, pack_member_list(roster)))
    hello.node.call(*scripts.SWAP.call([INCARNATION_KEY], old_mark, mark.text))


def _hear(answer: NodeRequest, hellos: list[DiscoveryReply], reasons: dict[str, str]) -> None:
    name = answer.node.name
    if isinstance(answer.error, EvictingNodeError):
        raise answer.error
    if answer.error is not None:
        reasons[name] = str(answer.error)
        return
    roster, mark = answer.replies
    for reply in answer.replies:
        if isinstance(reply, ReplyError):
            reasons[name] = str(reply)
            return
    del reasons[name]
    hellos.append(
        DiscoveryReply(answer.node, answer.life, read_member_list(roster), read_incarnation(mark))
    )


def _require_enough(roster: MemberList, reasons: dict[str, str]) -> None:
    for nodes in roster.lists:
        missing = sorted(reasons.keys() & set(nodes))
        if len(missing) >= max(1, roster.copies):
            said = "; ".join(f"{name}: {reasons[name]}" for name in missing)
            raise UnavailableError(
                f"{len(missing)} of {len(nodes)} nodes do not answer, and with {roster.copies} "
                f"copies at most {roster.copies - 1} may be missing: {said}"
            )


def _check(roster: MemberList, members: Members) -> None:
    copies = members.roster.copies
    if roster.copies != copies:
        raise InvalidOptionError(
            f"replication_factor={copies}, but the values on these nodes have {roster.copies} "
            "copies; open them with that number"
        )
    strangers = sorted(members.nodes.keys() - set(roster.everyone))
    if strangers:
        logger.warning(
            "%s: no members of the cluster of %s, and not used; add_node() makes them so",
            ", ".join(strangers),
            ", ".join(roster.everyone),
        )
